"""Each measure by hand, and the bounds of the interval that a plot draws."""

import math

import numpy as np
import pytest
import torch

from twotower.training.diagnostics import measures


def test_mean_pairwise_cosine_by_hand():
    # (3,0), (0,2), (1,1): cosines 0, 1/√2, 1/√2; the zero row is left out
    vectors = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    assert measures.mean_pairwise_cosine(vectors) == pytest.approx(2 / 3 / math.sqrt(2))
    assert measures.mean_pairwise_cosine(torch.tensor([[1.0, 2.0], [2.0, 4.0]])) == pytest.approx(1)
    assert math.isnan(measures.mean_pairwise_cosine(torch.tensor([[1.0, 2.0], [0.0, 0.0]])))


def test_effective_rank_by_hand():
    # singular values 3 and 1: shares 3/4 and 1/4,
    # entropy -.75 ln .75 - .25 ln .25 = .562335, e^.562335 = 1.754765
    assert measures.effective_rank(
        torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    ) == pytest.approx(1.754765, rel=1e-6)
    assert measures.effective_rank(
        torch.tensor([[1.0, 2.0], [2.0, 4.0], [-3.0, -6.0]])
    ) == pytest.approx(1, abs=1e-6)
    assert measures.effective_rank(torch.eye(5)) == pytest.approx(5)
    assert measures.effective_rank(torch.zeros(4, 3)) == 0


def test_principal_axes_by_hand():
    # along (3, 4, 0) / 5 at -2, 0, 2 and along z at 1, -2, 1: variances 8 and 6 of 14
    vectors = torch.tensor([[-1.2, -1.6, 1], [0, 0, -2], [1.2, 1.6, 1]]) + 7
    place, share = measures.principal_axes(vectors)
    assert share == pytest.approx([8 / 14, 6 / 14])
    torch.testing.assert_close(
        place.abs(), torch.tensor([[2, 1], [0, 2], [2, 1]]).double(), atol=1e-5, rtol=0
    )
    line, share = measures.principal_axes(torch.tensor([[1.0], [3.0]]))
    assert line.abs().tolist() == [[1, 0], [1, 0]] and share == [1, 0]


def test_zero_share_by_hand():
    assert (
        measures.zero_share(torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, -1.0]])) == 0.5
    )


def test_mimic_fit_by_hand():
    # errors (1-2, 0) and (3-4, 2-2): squares 1 + 1, mean 1;
    # the constant (3, 1) errs by 1 + 1 each: R² = 1 - 1/2
    augmented, target = (
        torch.tensor([[1.0, 0.0], [3.0, 2.0]]),
        torch.tensor([[2.0, 0.0], [4.0, 2.0]]),
    )
    assert measures.mimic_fit(augmented, target) == pytest.approx((1.0, 0.5))
    assert measures.mimic_fit(target.mean(0).expand(2, 2), target)[1] == pytest.approx(0)
    assert measures.mimic_fit(target, target) == (0, 1)
    assert math.isnan(measures.mimic_fit(augmented, torch.ones(2, 2))[1])


def test_covariance_distances_by_hand():
    # category 4: ±(1,1): [[2, 2], [2, 2]]; category 1: ±(1,0): [[2, 0], [0, 0]]:
    # difference [[0, 2], [2, 2]], norm √12
    vectors = torch.tensor([[0.0, 0.0], [2.0, 2.0], [5.0, 1.0], [7.0, 1.0], [9.0, 9.0]])
    distance, norm = measures.covariance_distances(vectors, torch.tensor([4, 4, 1, 1, -1]), [4, 1])
    np.testing.assert_allclose(distance, [[0, math.sqrt(12)], [math.sqrt(12), 0]])
    np.testing.assert_allclose(norm, [4, 2])


def test_hits_by_category_by_hand():
    rank, category = torch.tensor([1, 10, 11, 3, 2]), torch.tensor([0, 2, 2, 2, -1])
    targets, hits = measures.hits_by_category(rank, category, 3, k=10)
    assert targets.tolist() == [1, 0, 3] and hits.tolist() == [1, 0, 2]


def test_paired_change_by_hand():
    # 3 gain and 1 loses of 14: 2/14; with half a user more in each cell (3.5 - 1.5) / 16 = .125,
    # error 1.96 √(5 - 4/16) / 16 = .26698
    change, low, high = measures.paired_change(3, 1, 14)
    assert change == pytest.approx(2 / 14)
    assert (low, high) == pytest.approx((0.125 - 0.26698, 0.125 + 0.26698), abs=1e-5)


def test_the_interval_of_a_paired_change_covers_it_as_often_as_it_says():
    generator = np.random.default_rng(0)
    both, gained, lost, num = 0.05, 0.02, 0.04, 500
    counts = generator.multinomial(num, [both, gained, lost, 1 - both - gained - lost], size=2000)
    ends = [measures.paired_change(gain, loss, num)[1:] for _, gain, loss, _ in counts.tolist()]
    covered = np.mean([low < gained - lost < high for low, high in ends])
    assert 0.94 < covered < 0.965
