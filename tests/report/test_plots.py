"""What the plots draw, by hand."""

from pathlib import Path

import numpy as np
import pytest

from tests.report.world import METRICS, make_ranks
from twotower.report.categories import by_category, gains
from twotower.report.compared import compared
from twotower.report.lambdas import curves
from twotower.report.learning import learning, read_curve
from twotower.report.ranks import Ranks
from twotower.report.runs import Run
from twotower.report.section import Difference, Row, Section, Wanted
from twotower.report.variants import Variant


def difference_of(seeds):
    return Difference(0.0, 0.0, 0.0, None, None, compared(seeds, seeds))


def test_gains_of_a_category_are_differences_of_its_users():
    user, category = np.arange(4), np.array([0, 0, 1, 1])
    one, other = (
        Ranks(user, user, category, np.array(rank)) for rank in ([1, 99, 99, 99], [99, 99, 1, 1])
    )
    wanted = Wanted("hit_rate@10", (), None, 0.95, 100, 0, METRICS)
    baseline = Row(Variant("base", ()), {}, None)
    new = Row(Variant("new", ()), {}, difference_of((0, 1)))
    worse = Ranks(user, user, category, np.array([99] * 4))  # of a seed that the baseline has not
    ranks = {"base": {0: other, 1: other}, "new": {0: one, 1: other, 2: worse}}
    section = Section("toy", "f", "", (baseline, new), (), {}, ranks)
    found = gains(section, new, [category == 0, category == 1], wanted)
    assert found.mean.tolist() == [0.25, -0.5]  # users' hits: new .5 0 .5 .5, base 0 0 1 1


@pytest.mark.parametrize(("num_others", "note"), [(6, "; the best 5 of 6 variants"), (5, "")])
def test_the_title_says_that_not_all_variants_are_drawn(num_others, note):
    names = ["base", *(f"v{place}" for place in range(num_others))]
    ranks = {name: {0: make_ranks(0.1 * place, place)} for place, name in enumerate(names)}
    categories = [{"name": f"c{place}"} for place in range(4)]
    run = Run(Path("run"), "run", {"categories": categories, "seed": 0}, {})
    differences = [None, *[difference_of((0,))] * num_others]
    rows = tuple(
        Row(Variant(name, (run,)), {}, difference)
        for name, difference in zip(names, differences, strict=True)
    )
    wanted = Wanted("hit_rate@10", (), None, 0.95, 100, 0, METRICS)
    figure = by_category(Section("toy", "f", "", rows, (), {}, ranks), wanted)
    assert len(figure.axes) == 5 and figure.get_suptitle().endswith(
        f"some miss zero by chance{note}"
    )


def test_a_learning_curve_is_read_by_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss,val/mrr\n0,5,1.5,\n0,9,,.1\n1,18,,.2\n"
    )
    assert read_curve(tmp_path, "mrr") == {1: 0.1, 2: 0.2}
    assert read_curve(tmp_path, "ndcg@10") == {} and read_curve(tmp_path / "none", "mrr") == {}


def unequal(tmp_path):
    """Three weights; the largest has a third seed, which is far off, in ranks and in its curve."""
    rows = []
    for weight in (0, 1, 10):
        runs = []
        for seed in range(3 if weight == 10 else 2):
            folder = tmp_path / f"{weight}-{seed}"
            folder.mkdir()
            value = 0.5 if seed == 2 else 0.1
            text = f"epoch,val/ndcg@10\n0,{value}\n1,{value}\n"
            (folder / "metrics.csv").write_text(text)
            runs.append(
                Run(
                    folder,
                    folder.name,
                    {"seed": seed, "test": {"ndcg@10": value}},
                    {"loss.lambda3": weight},
                )
            )
        variant = Variant(f"λ3={weight}", tuple(runs))
        values = [run.record["test"]["ndcg@10"] for run in runs]
        rows.append(Row(variant, {"ndcg@10": (float(np.mean(values)), None)}, None))
    return Section("toy", "f", "", tuple(rows), (), {}, {})


def test_points_of_one_plot_are_of_the_same_seeds(tmp_path):
    section, wanted = unequal(tmp_path), Wanted("ndcg@10", (), None, 0.95, 100, 0, METRICS)
    (panel,) = curves(section, wanted).axes
    assert panel.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert panel.get_xlabel() == "λ3\nover the 2 seeds that all have"
    figure = learning(section, wanted)
    means = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_ydata()[-1] for line in means] == pytest.approx([0.1, 0.1, 0.1])
    assert "over the 2 seeds that all have" in figure.legends[0].get_title().get_text()
