"""What the plots draw, by hand."""

import numpy as np

from tests.report.world import METRICS
from twotower.report.categories import gains
from twotower.report.learning import read_curve
from twotower.report.ranks import Ranks
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


def test_a_learning_curve_is_read_by_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/mrr\n0,5,1.5,\n0,9,,.1\n1,18,,.2\n")
    assert read_curve(tmp_path, "mrr") == {1: 0.1, 2: 0.2}
    assert read_curve(tmp_path, "ndcg@10") == {} and read_curve(tmp_path / "none", "mrr") == {}
