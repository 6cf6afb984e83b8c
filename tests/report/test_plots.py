"""What the plots draw, by hand."""

from pathlib import Path

import numpy as np
import pytest

from tests.report.world import METRICS, make_ranks
from twotower.report.categories import by_category, gains
from twotower.report.learning import read_curve
from twotower.report.ranks import Ranks
from twotower.report.runs import Run
from twotower.report.section import Row, Section, Wanted
from twotower.report.variants import Variant


def test_gains_of_a_category_are_differences_of_its_users():
    user, category = np.arange(4), np.array([0, 0, 1, 1])
    one, other = (Ranks(user, user, category, np.array(rank)) for rank in ([1, 99, 99, 99], [99, 99, 1, 1]))
    wanted = Wanted("hit_rate@10", (), None, 0.95, 100, 0, METRICS)
    baseline = Row(Variant("base", ()), {}, None)
    section = Section("toy", "f", "", (baseline,), (), {}, {"base": [other, other], "new": [one, other]})
    found = gains(section, "new", [category == 0, category == 1], wanted)
    assert found.mean.tolist() == [0.25, -0.5]  # users' hits: new .5 0 .5 .5, base 0 0 1 1


@pytest.mark.parametrize(("num_others", "note"), [(6, "; the best 5 of 6 variants"), (5, "")])
def test_the_title_says_that_not_all_variants_are_drawn(num_others, note):
    names = ["base", *(f"v{place}" for place in range(num_others))]
    ranks = {name: [make_ranks(0.1 * place, place)] for place, name in enumerate(names)}
    run = Run(Path("run"), "run", {"categories": [{"name": f"c{place}"} for place in range(4)]}, {})
    rows = tuple(Row(Variant(name, (run,)), {}, None) for name in names)
    wanted = Wanted("hit_rate@10", (), None, 0.95, 100, 0, METRICS)
    figure = by_category(Section("toy", "f", "", rows, (), {}, ranks), wanted)
    assert len(figure.axes) == 5 and figure.get_suptitle().endswith(f"some miss zero by chance{note}")


def test_a_learning_curve_is_read_by_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/mrr\n0,5,1.5,\n0,9,,.1\n1,18,,.2\n")
    assert read_curve(tmp_path, "mrr") == {1: 0.1, 2: 0.2}
    assert read_curve(tmp_path, "ndcg@10") == {} and read_curve(tmp_path / "none", "mrr") == {}
