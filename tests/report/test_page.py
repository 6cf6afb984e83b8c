"""The page: its order, its tables on a narrow screen, and texts for its pictures."""

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.report.world import OPTIONS, make_ranks, run_of
from twotower.plotting import save_figure
from twotower.report import grid, markdown
from twotower.report.alt import TEXTS, describe
from twotower.report.blocks import Report
from twotower.report.page import as_html
from twotower.report.plots import PLOTS
from twotower.report.section import make_section


@pytest.fixture
def section(tmp_path):
    """λ3 of 0, 0.1 and 1, two seeds each, with popularity beside."""
    (tmp_path / "metrics.json").touch()
    runs = [
        run_of(
            seed,
            tmp_path,
            make_ranks(0.1 * lambda3, seed),
            settings={"loss.lambda1": 0.5, "loss.lambda3": lambda3},
            overrides=[f"loss.lambda3={lambda3}"],
            test={"ndcg@10": 0.1 + 0.01 * lambda3 + 0.001 * seed, "mrr": 0.2},
            popularity={"ndcg@10": 0.05, "mrr": 0.1},
        )
        for lambda3 in (0, 0.1, 1)
        for seed in (0, 1)
    ]
    metrics = {name: OPTIONS.metrics[name] for name in ("ndcg@10", "mrr")}
    return make_section(runs, OPTIONS._replace(metrics=metrics))


def test_the_answer_comes_first_and_the_protocol_after_the_tables(section):
    for text in (as_html(Report([section], []), [{}]), markdown.as_markdown(Report([section], []))):
        order = ["λ3 (0 → 1) ", "One part at a time", "All variants", "Protocol", "python src"]
        places = [text.index(words) for words in order]
        assert places == sorted(places), places


def test_differences_come_before_other_metrics_and_arrows_say_what_is_better(section):
    assert grid.make_grid(section).heading == [
        "variant", "NDCG@10 ↑", "Δ NDCG@10", "over users", "over seeds", "seeds", "MRR ↑",
    ]  # fmt: skip
    lines = {line.cells[0]: line for line in grid.make_grid(section).lines}
    assert list(lines) == ["dat λ3=0", "dat λ3=1", "dat λ3=0.1", "popularity"]
    assert lines["popularity"].cells[1:] == [".0500", "", "", "", "", ".1000"]
    assert lines["popularity"].is_reference


def test_one_part_at_a_time_has_the_weights_as_columns(section):
    table = grid.parts_grid(section)
    assert table.heading == [
        "part", "Δ NDCG@10", "over users", "over seeds", "λ1", "λ3", "seeds needed", "seeds",
        "NDCG@10 ↑",
    ]  # fmt: skip
    first = table.lines[0].cells
    assert first[0] == "λ3: 0 → 1\ndat λ3=1 − dat λ3=0"
    assert first[4:] == ["0.5", "0 → 1", "2", "2", ".1005 → .1105"]
    assert [line.cells[5] for line in table.lines] == ["0 → 1", "0 → 0.1"]


def test_a_narrow_screen_keeps_the_first_column_and_scrolls_the_pictures(section, tmp_path):
    save_figure(Figure(figsize=(3, 2), dpi=100), tmp_path / "plot.png")
    width = Image.open(tmp_path / "plot.png").width
    page = as_html(Report([section], []), [{"differences": tmp_path / "plot.png"}])
    assert width == 300 and "--width: 300px" in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert re.search(r"th:first-child \{[^}]*position: sticky", style)
    assert "prefers-color-scheme: dark" in style and "max-width: 40rem" in style
    assert page.count('<th scope="row">') == 2 + 4  # the pairs, then variants and popularity
    for tag in ("table", "figure", "details", "dl", "ul"):
        assert page.count(f"<{tag}") == page.count(f"</{tag}>") > 0


def test_each_plot_has_a_text_that_says_what_it_shows(section):
    assert TEXTS.keys() == PLOTS.keys()
    texts = {name: describe(name, section) for name in PLOTS}
    assert all("NDCG@10" in text and text.endswith(".") for text in texts.values())
    assert "dat λ3=1 +.0100 (+10.0 %), dat λ3=0.1 +.0010 (+1.0 %)." in texts["differences"]
    assert "Differences of NDCG@10: λ3 0 → 1 +.0100." in texts["lambda_curves"]
    assert "dat λ3=1 with NDCG@10 .1105" in texts["learning"]
    page = as_html(Report([section], []), [{"learning": Path(__file__)}])
    assert f'alt="{texts["learning"]}"' in page
