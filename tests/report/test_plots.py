"""What the plots draw, by hand."""

import numpy as np
import pytest

from tests.helpers.pictures import faults
from tests.report.world import OPTIONS, make_ranks, run_of
from twotower.report.categories import categories, gain
from twotower.report.forest import forest
from twotower.report.lambdas import curves, heat_map
from twotower.report.learning import learning, read_curve
from twotower.report.plots import PLOTS, draw
from twotower.report.ranks import Ranks
from twotower.report.section import make_section


def section_of(runs, **options):
    return make_section(runs, OPTIONS._replace(**options))


def test_gains_of_a_category_are_differences_of_its_users(tmp_path):
    user, category = np.arange(4), np.array([0, 0, 1, 1])

    def run(name, seed, rank):
        folder = tmp_path / f"{name}{seed}"
        folder.mkdir()
        (folder / "metrics.json").touch()
        ranks = Ranks(user, user, category, np.array(rank))
        fields = {"settings": {"name": name}, "overrides": [f"variant={name}"]}
        return run_of(seed, folder, ranks, test={"hit_rate@10": 0}, **fields)

    runs = [run("base", seed, [99, 99, 1, 1]) for seed in (0, 1)]
    runs += [run("new", 0, [1, 99, 99, 99]), run("new", 1, [99, 99, 1, 1])]
    runs.append(run("new", 2, [99] * 4))  # of a seed that the baseline has not
    section = section_of(runs, metric="hit_rate@10", baseline="base")
    means = [gain(section.comparisons[0], category == place, section)[0] for place in (0, 1)]
    assert means == [0.25, -0.5]  # users' hits: new .5 0 .5 .5, base 0 0 1 1


@pytest.mark.parametrize(("num_others", "note"), [(6, "; the best 5 of 6 variants"), (5, "")])
def test_the_title_names_the_number_of_variants(tmp_path, num_others, note):
    (tmp_path / "metrics.json").touch()
    runs = [
        run_of(
            folder=tmp_path,
            ranks=make_ranks(0.1 * place, place),
            settings={"model.dim": place},
            test={"ndcg@10": 0.1},
            categories=[{"name": f"c{place}"} for place in range(4)],
        )
        for place in range(num_others + 1)
    ]
    figure = categories(section_of(runs))
    assert len(figure.axes) == 5
    heading = " ".join(figure.get_suptitle().split())
    assert heading.endswith(f"some miss zero by chance{note}")


def test_a_learning_curve_is_read_by_epoch(tmp_path):
    log = "epoch,step,train/loss,val/mrr\n0,5,1.5,\n0,9,,.1\n1,18,,.2\n"
    (tmp_path / "metrics.csv").write_text(log)
    assert read_curve(tmp_path, "mrr") == {1: 0.1, 2: 0.2}
    assert read_curve(tmp_path, "ndcg@10") == {} and read_curve(tmp_path / "none", "mrr") == {}


@pytest.mark.parametrize("text", ["", "epoch\n", "epoch,val/mrr\nx,y\n", "epoch,val/mrr\n1,.1,3\n"])
def test_a_damaged_log_has_no_curve(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert read_curve(tmp_path, "mrr") == {}


@pytest.fixture
def unequal(tmp_path):
    """Three weights; the largest has a third seed with other values, in the test and its curve."""
    runs = []
    for weight, seed in [(0, 0), (0, 1), (1, 0), (1, 1), (10, 0), (10, 1), (10, 2)]:
        value = 0.5 if seed == 2 else 0.1
        folder = tmp_path / f"{weight}-{seed}"
        folder.mkdir()
        (folder / "metrics.json").touch()
        (folder / "metrics.csv").write_text(f"epoch,val/ndcg@10\n0,{value}\n1,{value}\n")
        settings = {"loss.lambda3": weight}
        runs.append(run_of(seed, folder, settings=settings, test={"ndcg@10": value}))
    return section_of(runs)


def test_points_of_one_plot_are_of_the_same_seeds(unequal):
    (panel,) = curves(unequal).axes
    assert panel.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert panel.get_xlabel() == "λ3\nover the 2 common seeds"
    figure = learning(unequal)
    for axis in figure.axes:  # the baseline and a variant
        assert [line.get_ydata()[-1] for line in axis.lines] == pytest.approx([0.1, 0.1])
    assert "over the 2 common seeds" in figure.get_suptitle()


def test_a_heat_map_shows_the_largest_grid(tmp_path):
    (tmp_path / "metrics.json").touch()
    weights = [(0, 0), (0, 1), (0.5, 0), (0.5, 1), (1, 1)]
    runs = [
        run_of(
            folder=tmp_path,
            settings={"loss.lambda1": one, "loss.lambda2": one, "loss.lambda3": three},
            test={"ndcg@10": one + three / 10},
        )
        for one, three in weights
    ]
    axis = heat_map(section_of(runs)).axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts == [".0000", ".5000", "no run", ".1000", ".6000", "1.1000"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("λ1 = λ2", "λ3")
    assert heat_map(section_of(runs[1:4])) is None  # a cross is no grid


def test_names_of_data_become_safe_and_different_names_of_files(unequal, tmp_path):
    sections = [unequal._replace(name=name) for name in ("../../a/b" * 99, "../../a/b" * 99)]
    paths = [path for files in draw(sections, tmp_path) for path in files.values()]
    assert len(set(paths)) == len(paths) == 3 * len(sections)
    assert {path.parent for path in paths} == {tmp_path}
    assert all(path.exists() for path in paths)


def grid(folder, weights, num_seeds, num_categories, **fields):
    """Runs of all combinations of two weights, with ranks and curves."""
    places = [
        (two, three, seed) for two in weights for three in weights for seed in range(num_seeds)
    ]
    for two, three, seed in places:
        own = folder / f"{two}-{three}-{seed}"
        own.mkdir(parents=True)
        (own / "metrics.json").touch()
        rows = [f"{epoch},{0.1 + 0.01 * epoch + 0.003 * seed + 0.01 * two}" for epoch in range(12)]
        (own / "metrics.csv").write_text("\n".join(["epoch,val/ndcg@10", *rows]) + "\n")
        yield run_of(
            seed,
            own,
            make_ranks(0.1 * (two + three), [seed, int(100 * two)], num_categories=num_categories),
            settings={"loss.lambda1": 0.5, "loss.lambda2": two, "loss.lambda3": three},
            overrides=[f"loss.lambda2={two}", f"loss.lambda3={three}"],
            test={"ndcg@10": 0.1 + 0.01 * two + 0.002 * seed},
            categories=[{"name": f"a rather long category {n}"} for n in range(num_categories)],
            **fields,
        )


@pytest.mark.parametrize(
    ("weights", "num_seeds", "num_categories", "fields"),
    [
        ([0, 0.5, 1], 2, 3, {}),
        ([0, 0.25, 0.5, 0.75], 1, 12, {"data": "my_own_shop_2026 with a long name"}),
    ],
)
def test_all_plots_are_readable(tmp_path, weights, num_seeds, num_categories, fields):
    runs = list(grid(tmp_path, weights, num_seeds, num_categories, **fields))
    section = section_of(runs)
    drawn = {name: plot(section) for name, plot in PLOTS.items()}
    assert all(drawn.values())
    assert {name: faults(figure) for name, figure in drawn.items()} == dict.fromkeys(drawn, [])
    # on a phone of 390 pixels, letters of 9 pt are at least 9 pixels high
    assert all(9 / 72 / figure.get_figwidth() * 360 > 9 for figure in drawn.values())


def test_rows_of_the_forest_hold_the_longest_names_and_notes(unequal):
    (row, *rows) = unequal.comparisons
    variant = row.variant._replace(label="a" * 99)
    section = unequal._replace(comparisons=[row._replace(variant=variant), *rows])
    assert faults(forest(section)) == []


def test_learning_curves_show_popularity_where_it_is_known(unequal):
    section = unequal._replace(references={"popularity": {"ndcg@10": 0.05}})
    for axis in learning(section).axes:
        assert axis.lines[-1].get_label() == "popularity, test"
        assert axis.lines[-1].get_ydata() == [0.05, 0.05]


def test_each_learning_curve_is_named_by_its_plot(unequal):
    titles = [axis.get_title(loc="left") for axis in learning(unequal).axes]
    assert titles == [row.variant.label for row in unequal.comparisons]
