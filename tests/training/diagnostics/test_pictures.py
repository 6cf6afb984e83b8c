"""The pictures of the diagnostics: readable, and without parts that say nothing."""

import pytest
import torch

from tests.helpers.pictures import faults
from twotower.training.diagnostics.measure import Diagnosis
from twotower.training.diagnostics.plots import figures

LONG = [f"a rather long category {place}" for place in range(12)]
SIDES = ("user", "item", "a_u", "a_v")


def course(num_epochs):
    def row(epoch):
        values = {f"cosine/{side}": 0.9 - 0.1 * epoch for side in SIDES}
        values |= {f"effective_rank/{side}": 5 + epoch for side in SIDES}
        for part in ("train", "held_out"):
            values |= {f"mimic_r2/{part}/{side}": 0.5 - 9 / (epoch + 1) for side in ("a_u", "a_v")}
        return {"epoch": epoch, **values}

    return [row(epoch) for epoch in range(num_epochs)]


def found(names, zero=0.0):
    num = len(names)
    distance = 0.3 + 0.1 * torch.rand(num, num, generator=torch.Generator().manual_seed(0))
    distance = (distance + distance.T) * (1 - torch.eye(num))
    values = {f"zero_share/{side}": zero for side in SIDES}
    swaps = ("a_u_shuffled", "a_u_mean", "a_v_shuffled", "a_v_mean")
    counts = [1_000 - place for place in range(num)]
    tables = {
        "num_vectors": dict.fromkeys(SIDES, 200),
        "covariance": {"names": names, "items": counts, "distance": distance.tolist()},
        "plane": {
            "names": names,
            "category": [place % (num + 1) - 1 for place in range(60)],
            "vectors": torch.randn(60, 4),
        },
        "hit_rate": {"names": names, "targets": counts, "hits": [9] * num, "k": 10},
        "swaps": {
            "k": 10,
            "num_users": 2048,
            "intact": 0.1245,
            "gained": dict.fromkeys(swaps, 12),
            "lost": dict.fromkeys(swaps, 20),
        },
        "model": {"load": [0.1, 0.5, 0.4], "share_of_the_gate": [0.5, 0.5]},
    }
    return Diagnosis(values, tables)


@pytest.mark.parametrize(("names", "num_epochs"), [(LONG, 10), (["a", "b"], 1)])
def test_they_are_readable(names, num_epochs):
    drawn = figures(course(num_epochs), found(names, zero=0.02))
    assert len(drawn) == 6
    assert {name: faults(figure) for name, figure in drawn.items()} == dict.fromkeys(drawn, [])


def test_zero_vectors_have_a_panel_only_if_there_are_any():
    assert len(figures([], found(LONG))["vectors"].axes) == 2
    axis = figures([], found(LONG, zero=0.02))["vectors"].axes[2]
    (lines,) = axis.collections  # Wilson: 4 of 200
    ends = lines.get_segments()[0][:, 1]
    assert ends == pytest.approx([0.00781, 0.05029], abs=1e-4)


def test_the_diagonal_takes_no_colours():
    figure = figures([], found(LONG))["category_covariance"]
    image = figure.axes[0].images[0]
    assert image.get_array().diagonal().mask.all()
    assert 0.5 < image.norm.vmin < image.norm.vmax < 0.9


def test_use_in_ranking_has_intervals():
    axis = figures([], found(LONG))["augmented"].axes[1]
    segments = axis.collections[0].get_segments()
    assert len(segments) == 4 and all(left[0] < 0 < right[0] for left, right in segments)
    assert axis.lines[1].get_xdata() == pytest.approx([-8 / 2048] * 4)
