"""The data card: figures by hand, warnings on both sides of their thresholds, the command."""

import copy
import io
import json
import math
import re
import warnings

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from tests.conftest import ROOT, make_data
from tests.helpers.frames import KEEP_ALL, make_frames
from tests.helpers.pictures import faults
from tests.helpers.table import reader as table_reader
from twotower.data.card import figures as card_figures
from twotower.data.card.console import show
from twotower.data.card.describe import describe
from twotower.data.card.figures import measure
from twotower.data.card.findings import findings, percent
from twotower.data.card.sheet import draw
from twotower.data.card.spread import concentration, evenness, spread
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.prepare import prepare
from twotower.data.splits import Temporal
from twotower.errors import UserError

SMALL = (
    "data.reader.num_users=150",
    "data.reader.num_items=80",
    "data.reader.interactions_per_user=10",
)
# training before 10, validation before 20; user 3 and items 10 and 11 are cold;
# user 1 comes back to item 7
ROWS = [(1, 7, 1), (1, 8, 2), (1, 9, 3), (1, 7, 4), (1, 10, 12), (1, 11, 21)]
ROWS += [(2, 7, 1), (2, 8, 22), (2, 9, 23), (3, 7, 13), (3, 8, 24)]
ITEMS = {
    "item": [7, 8, 9, 10, 11],
    "category": ["a", "a", "b", None, "b"],
    "tags": [["x", "y"], [], ["y"], ["z"], []],
    "price": [1.0, 3.0, None, 5.0, None],
}
USERS = {"user": [1, 2, 3], "colour": ["red", None, "blue"]}
COLUMNS = ("user", "item", "time")


def prepared(duplicates="first", rows=ROWS, items=ITEMS, columns=COLUMNS, **more):
    frames = make_frames(rows, USERS, items, columns, **more)
    options = KEEP_ALL._replace(
        filters=Filters(None, duplicates, 0), split=Temporal(10, 20, 0), history_length=2
    )
    return prepare(frames, options), options


def test_figures_by_hand():
    card = measure(*prepared())
    figures = card.figures
    assert figures["raw"] == {"interactions": 11, "users": 3, "items": 5, "categories": 2}
    assert figures["dropped"] == {"repeated pairs (the first is kept)": 1}
    assert figures["kept"] == {
        "interactions": 10,
        "users": 3,
        "items": 5,
        "density": pytest.approx(10 / 15),
    }
    train, val, test = figures["parts"].values()
    # training: user 1 takes 7, 8, 9 and user 2 takes 7
    assert (train["interactions"], train["users"], train["items"]) == (4, 2, 3)
    assert (train["first"], train["last"], test["last"]) == ("1", "3", "24")
    # validation: 1 takes the cold 10, the cold user 3 takes 7
    assert (val["interactions"], val["users"], val["items"], val["cold_items"]) == (2, 2, 2, 1)
    assert (val["cold_item_targets"], val["cold_users"], val["cold_user_targets"]) == (
        1 / 2,
        1 / 2,
        1 / 2,
    )
    assert val["groups"] == {"none": 1 / 2, "head": 1 / 2, "middle": 0, "tail": 0}
    # test: 1 takes the cold 11, 2 takes 8 and 9, the cold user 3 takes 8
    assert (test["interactions"], test["users"], test["items"], test["cold_items"]) == (4, 3, 3, 1)
    assert (test["cold_item_targets"], test["cold_users"], test["cold_user_targets"]) == (
        1 / 4,
        pytest.approx(1 / 3),
        1 / 4,
    )
    assert test["groups"] == {"none": 0, "head": 1 / 2, "middle": 1 / 2, "tail": 0}
    assert (
        figures["per_user"]["min"],
        figures["per_user"]["max"],
        figures["per_user"]["mean"],
    ) == (1, 3, 2)
    assert sorted(card.curves["item"]) == [1, 1, 2] and sorted(card.curves["user"]) == [1, 3]
    # a user's positives in training have 0, 1, 2, … before them: 0, 1, 2 and 0;
    # before the first target 3 and 0, then 4, 1, 1
    assert figures["history"]["short"] == {
        "train": 3 / 4,
        "val": 1 / 2,
        "test": pytest.approx(2 / 3),
    }
    assert figures["history"]["none"] == {"train": 1 / 2, "val": 1 / 2, "test": 0}
    assert sorted(card.curves["history/test"]) == [1, 1, 4] and sorted(
        card.curves["history/val"]
    ) == [0, 3]


def test_categories_by_hand():
    # of four training interactions with a category, a (items 7 and 8) has three and b (9, 11) one;
    # 10 has no category
    card = measure(*prepared())
    category = card.figures["categories"]
    assert category["top"] == [
        {"name": "a", "items": 2, "share": 0.75},
        {"name": "b", "items": 2, "share": 0.25},
    ]
    assert category["largest_share"] == 0.75 and category["items_without"] == pytest.approx(1 / 5)
    assert category["interactions_without"] == 0
    assert category["effective_num"] == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert category["groups"]["head"] == {
        "categories": 1,
        "items": 2,
        "share": 0.75,
    }  # b starts at .75: middle until .8
    assert category["groups"]["middle"] == {"categories": 1, "items": 2, "share": 0.25}
    assert card.curves["category"].tolist() == [3, 1] and card.curves[
        "category_group"
    ].tolist() == [0, 1]


def test_features_by_hand():
    """Only training rows count as missing: user 2's colour, item 8's tags, item 9's price.

    Price 2 would be the mean of 1 and 3.
    """
    user, item = measure(*prepared()).figures["features"].values()
    assert [row["name"] for row in user] == ["user_id", "colour", "history"]
    assert (
        user[1] == {"name": "colour", "kind": "categorical", "values": 1, "missing": 0.5}
        and "missing" not in user[2]
    )
    assert item[1] == {
        "name": "tags",
        "kind": "multi",
        "values": 2,
        "missing": pytest.approx(1 / 3),
        "width": 2,
    }
    assert item[2] == {
        "name": "price",
        "kind": "numeric",
        "values": 0,
        "missing": pytest.approx(1 / 3),
    }


def test_repeats_are_counted_where_they_are_dropped_or_kept():
    assert measure(*prepared()).figures["repeats"] == {"share": 1 / 11, "of": "raw"}
    figures = measure(*prepared("all")).figures
    assert figures["repeats"] == {"share": pytest.approx(1 / 11), "of": "kept"}
    assert [part["interactions"] for part in figures["parts"].values()] == [5, 2, 4]


def test_behaviours_are_counted():
    rows = [(*row, int(row[2] == 4)) for row in ROWS]
    data, options = prepared(
        rows=rows, columns=(*COLUMNS, "behaviour"), behaviours=("click", "buy")
    )
    figures = measure(data, options).figures
    assert figures["behaviours"] == {"click": 10, "buy": 1}
    assert figures["repeats"] == {
        "share": pytest.approx(1 / 11),
        "of": "kept",
    }  # bought what was clicked before


def test_targets_are_distinct_and_those_seen_before_are_counted():
    # validation: user 1 comes back to 7 of training, and takes 10 twice; user 2 takes 8
    rows = [(1, 7, 1), (1, 8, 2), (1, 10, 12), (1, 7, 13), (1, 10, 14), (2, 7, 1), (2, 8, 11)]
    # test: user 1 takes 10 of validation, 8 of training, both twice, and 9; user 2 takes 9
    rows += [(1, 10, 21), (1, 8, 22), (1, 10, 23), (1, 8, 24), (1, 9, 25), (2, 9, 26)]
    parts = measure(*prepared("all", rows)).figures["parts"]
    assert (parts["val"]["targets"], parts["val"]["seen_targets"]) == (3, pytest.approx(1 / 3))
    assert (parts["test"]["targets"], parts["test"]["seen_targets"]) == (4, pytest.approx(2 / 4))
    own = measure(*prepared("first", rows)).figures["parts"]["val"]
    assert (own["targets"], own["seen_targets"]) == (2, 0)  # 10 of user 1, 8 of user 2


def test_drift_by_hand():
    # 30 items, so the top 3: 0, 1, 2 in training and 2, 3, 4 in test share one;
    # the last of test's three has 5 targets
    train, test = np.zeros(30, int), np.zeros(30, int)
    train[:5], test[:5] = [9, 8, 7, 6, 5], [1, 2, 9, 7, 5]
    assert card_figures._drift(train, test) == {
        "top": 3,
        "overlap": pytest.approx(1 / 3),
        "least": 5,
    }
    assert card_figures._drift(train[:9], test[:9])["overlap"] is None


def test_spread_by_hand():
    values = spread(np.arange(1, 101))
    assert [values[name] for name in ("min", "5%", "50%", "99%", "max", "mean")] == [
        1,
        5,
        50,
        99,
        100,
        50.5,
    ]
    # ascending 1, 1, 2: 2 (1*1 + 2*1 + 3*2) / (3*4) - 4/3 = 1/6;
    # the top tenth of three is one item with 2 of 4
    assert concentration(np.array([1, 2, 1])) == {
        "gini": pytest.approx(1 / 6),
        "top_1%": 0.5,
        "top_10%": 0.5,
    }
    assert (
        concentration(np.ones(50))["gini"] == pytest.approx(0)
        and concentration(np.ones(50))["top_10%"] == 0.1
    )
    assert evenness(np.array([5.0, 5.0, 0.0])) == pytest.approx(2) and evenness(np.zeros(0)) == 0


def test_percent():
    shares = (0, 1, 0.5, 0.0345, 0.001, 0.00012, 0.997, 0.99999)
    assert [percent(share) for share in shares] == [
        "0%",
        "100%",
        "50%",
        "3.5%",
        "0.1%",
        "0.012%",
        "99.7%",
        ">99.9%",
    ]


CLEAN = {
    "raw": {"interactions": 100_000, "users": 5_000, "items": 900, "categories": 9},
    "dropped": {"rated below 4": 30_000},
    "kept": {"interactions": 70_000, "users": 5_000, "items": 900, "density": 0.02},
    "parts": {
        "test": {"cold_item_targets": 0.0, "cold_users": 0.0, "users": 5_000, "seen_targets": 0.0}
    },
    "time_unit": "s",
    "per_user": {"50%": 12},
    "categories": {
        "num": 9,
        "largest_share": 0.3,
        "items_without": 0.0,
        "top": [{"name": "news", "items": 3, "share": 0.3}],
    },
    "history": {"length": 10, "none": {"test": 0.0}},
    "repeats": {"share": 0.0, "of": "raw"},
    "drift": {"top": 90, "overlap": 0.6, "least": 20},
    "features": {"user": [{"name": "age", "kind": "numeric", "missing": 0.1}], "item": []},
    "options": {"split": {"name": "Temporal"}, "mask_seen": True},
}


def changed(**changes):
    """``CLEAN`` with ``a__b=value`` in place of ``CLEAN["a"]["b"]``."""
    figures = copy.deepcopy(CLEAN)
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = figures
        for name in parents:
            node = node[name]
        node[leaf] = value
    return figures


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"parts__test__cold_item_targets": 0.38}, "38% of test targets are cold"),
        ({"parts__test__cold_users": 0.05}, "5.0% of test users are cold"),
        ({"categories": {"num": 0}}, "no item has a category: set loss.lambda3=0"),
        ({"categories__num": 1}, "one category: .* loss.lambda3=0"),
        ({"categories__largest_share": 0.8}, "one category, news, holds 80%"),
        ({"categories__items_without": 0.1}, "10% of items have no category"),
        ({"time_unit": "order"}, "temporal is impossible"),
        ({"options__split__name": "RandomRatio"}, "data.history_length=0"),
        ({"repeats": {"share": 0.2, "of": "raw"}}, "they are dropped"),
        ({"parts__test__seen_targets": 0.2}, "20% of test targets .* misses for every model"),
        (
            {"parts__test__seen_targets": 0.01, "options__mask_seen": False},
            "repeats histories finds",
        ),
        ({"parts__test__seen_targets": 0.3, "options__mask_seen": "except_targets"}, "more easily"),
        ({"drift__overlap": 0.2}, "only 20% of the 90 most popular"),
        (
            {"kept__interactions": 40_000},
            "40% of raw interactions are kept; 30% were dropped as: rated below 4",
        ),
        ({"parts__test__users": 900}, r"900 test users: .* by 0\.010"),  # sqrt(.1 * .9 / 900)
        ({"per_user__50%": 2}, "half of the users have at most 2"),
        ({"history__none__test": 0.3}, "30% of test users have no history"),
        (
            {"features__user": [{"name": "age", "kind": "numeric", "missing": 0.9}]},
            "user feature age is missing, or the mean",
        ),
    ],
)
def test_each_finding_stands_alone(changes, text):
    assert findings(CLEAN) == []
    (found,) = findings(changed(**changes))
    assert re.search(text, found), found


@pytest.mark.parametrize(
    "changes",
    [
        {
            "parts__test__cold_item_targets": 0.049,
            "parts__test__cold_users": 0.049,
            "history__none__test": 0.049,
        },
        {
            "categories__largest_share": 0.49,
            "categories__items_without": 0.09,
            "repeats__share": 0.09,
        },
        {"parts__test__seen_targets": 0.009, "repeats": {"share": 0.5, "of": "kept"}},
        {
            "drift__overlap": 0.1,
            "drift__least": 9,
        },  # who is in the top of a small test part is chance
        {"options__split__name": "RandomRatio", "history__length": 0},
        {"parts__test__users": 1_001, "per_user__50%": 3, "kept__interactions": 50_000},
    ],
)
def test_no_finding_below_its_threshold(changes):
    assert findings(changed(**changes)) == []


def full_figures(duplicates="first", **more):
    """Figures as ``describe`` completes them, the curves, the histogram of time."""
    data, options = prepared(duplicates, **more)
    card = measure(data, options)
    about = {
        "data": "mine",
        "note": "[bold]reconstructed[/bold]",
        "remarks": ["half a file", "a table\nof columns"],
        "options": {
            "split": {"name": "Temporal", "val_from": 10},
            "filters": {"min_value": None, "k_core": 0},
            "mask_seen": "except_targets",
            "reader": {},
        },
        "fingerprint": "f",
        "preparation": {
            "seconds": 1.0,
            "stages": {"reading": 0.9},
        },
    }
    figures = {**about, **card.figures}
    return {**figures, "findings": findings(figures)}, card.curves, data.meta["times"]


def printed(figures, width):
    out = io.StringIO()
    show(figures, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_shows_it_all_without_breaking_lines(width):
    items = {**ITEMS, "category": ["[red]a" + "b" * 60, "[red]a" + "b" * 60, "c", None, "c"]}
    text = printed(full_figures(items=items)[0], width)
    assert max(map(len, text.splitlines())) <= width
    # remarks are printed above the card
    for part in ("half a file", "of columns", "Temporal", "null", "targets seen before"):
        assert part not in text, part
    for part in (
        "mine",
        "[bold]reconstructed",
        "temporal, val_from=10",
        "except_targets",
        "- repeated pairs",
        "[red]a",
        "0.17",
        "11",
        "reading 0.9 s",
    ):
        assert part in text, part
    assert text.count("\n!") == len(full_figures(items=items)[0]["findings"]) > 0


def test_no_categories_and_no_clock_are_said_not_drawn():
    items = {**ITEMS, "category": [None] * 5}
    figures, curves, _ = full_figures(items=items)
    for part in figures["parts"].values():
        part.pop("first"), part.pop("last")
    text = printed(figures, 100)
    assert "largest" not in text and "set loss.lambda3=0" in text
    axes = draw(figures, curves, {}).axes
    assert axes[1].get_title(loc="left") == "parts (the data know order, no clock)"
    assert [text.get_text() for text in axes[3].texts] == ["no item has a category"]


def test_the_sheet_draws_what_the_figures_say():
    figures, curves, times = full_figures()
    axes = draw(figures, curves, times).axes
    bars = [(bar.get_x(), bar.get_width()) for bar in axes[0].patches]
    assert bars == [(0, 11), (10, 1), (0, 10)]  # raw, one dropped at the end, kept
    tops = [patch.get_data().values.sum() for patch in axes[1].patches]
    assert [tops[0], tops[1] - tops[0], tops[2] - tops[1]] == [
        4,
        2,
        4,
    ]  # stacked: training, validation, test
    shares = [bar.get_width() for bar in axes[5].patches]
    assert shares == [
        0.5,
        0,
        0,
        0.5,
        0.5,
        0.5,
        0.5,
        0.5,
        0,
        0,
        0.25,
        0.25,
    ]  # head … no category, cold item, cold user
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(figures, curves, times).savefig(io.BytesIO())
    assert faults(draw(figures, curves, times)) == []


def test_a_thousand_categories_and_dates_draw_without_warnings():
    figures, curves, times = full_figures()
    size = np.arange(1000, 0, -1.0)
    curves = {**curves, "category": size, "category_group": np.repeat([0, 1, 2], [100, 200, 700])}
    times = {
        **times,
        "unit": "s",
        "edges": [1_600_000_000 + 3_600 * edge for edge in times["edges"]],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(figures, curves, times).savefig(out := io.BytesIO())
    assert out.getvalue().startswith(b"\x89PNG")
    assert faults(draw(figures, curves, times)) == []


def test_prepare_then_again_then_by_force(script):
    first = script("prepare", *SMALL, "output=cards/small")
    assert first.returncode == 0, first.stderr
    folder = next(path for path in (script.folder / "cache").iterdir() if path.is_dir())
    written = (folder / "meta.json").stat().st_mtime_ns
    for place in (folder, script.folder / "cards" / "small"):
        figures = json.loads((place / "card.json").read_text())
        assert figures["data"] == "synthetic" and figures["raw"]["users"] == 150
        assert (place / "card.png").read_bytes().startswith(b"\x89PNG")
        assert str(place.relative_to(script.folder) / "card.json") in first.stdout
    assert "there already" not in first.stdout
    again = script("prepare", *SMALL)
    assert "there already" in again.stdout and (folder / "meta.json").stat().st_mtime_ns == written
    forced = script("prepare", *SMALL, "force=true")
    assert forced.returncode == 0 and "there already" not in forced.stdout
    assert (folder / "meta.json").stat().st_mtime_ns > written
    assert {path.name for path in script.folder.iterdir()} == {"cache", "cards"}  # no litter
    assert not list(script.folder.rglob(".*"))


def test_the_card_says_how_users_were_thinned(script):
    run = script("prepare", *SMALL, "data.max_per_user=6", "data.thinning_seed=7")
    said = " ".join(run.stdout.split())
    assert "max_per_user=6, thinning_seed=7" in said
    assert "beyond data.max_per_user=6, drawn with" in said and "seed 7" in said
    assert "thinning" not in script("prepare", *SMALL).stdout


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.k_cor=3", "did you mean data.k_core"),
        ("data=synthetik", "did you mean synthetic"),
        ("data.k_core=-1", "data.k_core must be"),
        ("+froce=true", "unknown setting froce"),
        ("output=taken", "output=taken is a file"),
    ],
)
def test_mistakes_end_in_one_line(script, override, line):
    (script.folder / "taken").write_text("")
    run = script("prepare", *SMALL, override)
    assert run.returncode == 1 and line in run.stderr and run.stderr.count("error:") == 1
    assert "Traceback" not in run.stderr and not (script.folder / "cache").exists()


def test_a_cache_of_somebody_else_gets_no_card(tmp_path, monkeypatch, capsys):
    data = make_data(tmp_path)
    data.preparation.load()
    folder = data.preparation.folder
    monkeypatch.setattr("twotower.data.card.describe.os.access", lambda *_: False)
    describe(data, "small", False, str(tmp_path / "own"))
    assert not (folder / "card.json").exists() and (tmp_path / "own" / "card.json").exists()
    assert "there already" in capsys.readouterr().out
    with pytest.raises(UserError, match="is a file"):
        describe(data, "small", False, str(folder / "meta.json"))


def test_remarks_stand_once_above_the_card_also_where_data_are_there(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    rows = [f"u{row % 9},i{row % 8},{1_600_000_000 + row},{row % 2}" for row in range(60)]
    (tmp_path / "raw" / "clicks.csv").write_text("\n".join(["user,item,ts,shade", *rows]))
    data = make_data(tmp_path, table_reader(interactions="clicks.csv"))
    for _ in range(2):
        describe(data, "mine", False, None)
        shown = capsys.readouterr()
        assert shown.err.count("What was taken as what") == 1 and "shade" not in shown.out


def test_what_is_prepared_is_what_training_reads():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["experiment=dat_movielens_1m", "data.k_core=3"]
        assert compose("prepare", overrides).data == compose("train", overrides).data
