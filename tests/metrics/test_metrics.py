"""Ranking metrics by hand, and against torchmetrics' functional forms."""

import math

import pytest
import torch
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from twotower.errors import UserError
from twotower.metrics.hit_rate import HitRate
from twotower.metrics.mrr import MRR
from twotower.metrics.ndcg import NDCG
from twotower.metrics.recall import Recall

# user 0 has targets at ranks 2 and 11, user 1 one at rank 1, user 2 one at rank 40; 0 is padding
RANK = torch.tensor([[2, 11], [1, 0], [40, 0]])
ALL = torch.ones(3, 2, 1, dtype=torch.bool)


def value(metric, rank=RANK, group=ALL):
    metric.update(rank, group)
    return metric.compute()


def test_by_hand():
    assert value(HitRate(1, [1, 10, 100])).tolist()[0] == pytest.approx([1 / 3, 2 / 3, 1])
    assert value(Recall(1, [1, 10, 100])).tolist()[0] == pytest.approx([1 / 3, 1.5 / 3, 1])
    # user 0 at 10: 1/log2(3) = .63093 over 1 + .63093; at 100 also 1/log2(12) = .27894;
    # user 2 at 100: 1/log2(41) = .18665
    expected = [(0.63093 / 1.63093 + 1) / 3, ((0.63093 + 0.27894) / 1.63093 + 1 + 0.18665) / 3]
    assert value(NDCG(1, [10, 100])).tolist()[0] == pytest.approx(expected, abs=1e-5)
    assert value(MRR(1)).item() == pytest.approx((1 / 2 + 1 + 1 / 40) / 3)


def test_a_group_counts_its_own_targets():
    # group 0: user 0's target at rank 11 and user 1's; group 1: all targets; group 2: none
    group = torch.zeros(3, 2, 3, dtype=torch.bool)
    group[0, 1, 0] = group[1, 0, 0] = True
    group[:, :, 1] = RANK > 0
    result = value(HitRate(3, [10]), group=group)[:, 0]
    assert result[:2].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert math.isnan(result[2])
    assert value(Recall(3, [10]), group=group)[:2, 0].tolist() == pytest.approx([1 / 2, 1.5 / 3])
    assert value(MRR(3), group=group)[:2, 0].tolist() == pytest.approx(
        [(1 / 11 + 1) / 2, (1 / 2 + 1 + 1 / 40) / 3]
    )
    # user 0's only target of group 0 is the best possible one there: 1/log2(12) over 1
    assert value(NDCG(3, [100]), group=group)[0].item() == pytest.approx(
        (0.27894 + 1) / 2, abs=1e-5
    )


def test_batches_and_processes_add_up():
    whole, parts = HitRate(1, [10]), HitRate(1, [10])
    whole.update(RANK, ALL)
    for row in range(3):
        parts.update(RANK[row : row + 1], ALL[:1])
    assert torch.equal(whole.compute(), parts.compute())
    assert all(state.dtype == torch.float64 for state in (whole.total, whole.count))
    assert (
        whole._reductions["total"].__name__ == whole._reductions["count"].__name__ == "dim_zero_sum"
    )


def test_against_torchmetrics():
    """torchmetrics ignores targets scored <= 0, so its scores are shifted above 0."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        order = torch.randperm(60, generator=generator)
        targets = torch.randperm(60, generator=generator)[:3]
        scores = 60.0 - order.float()  # item i has rank order[i] + 1, and its score is positive
        relevant = torch.zeros(60, dtype=torch.bool)
        relevant[targets] = True
        rank = (order[targets] + 1)[None]
        group = torch.ones(1, 3, 1)
        for k in (1, 10, 50):
            assert (
                value(HitRate(1, [k]), rank, group).item()
                == retrieval_hit_rate(scores, relevant, top_k=k).item()
            )
            assert value(Recall(1, [k]), rank, group).item() == pytest.approx(
                retrieval_recall(scores, relevant, top_k=k).item()
            )
            expected = retrieval_normalized_dcg(scores, relevant, top_k=k).item()
            assert value(NDCG(1, [k]), rank, group).item() == pytest.approx(expected, abs=1e-6)
        assert value(MRR(1), rank, group).item() == pytest.approx(
            retrieval_reciprocal_rank(scores, relevant).item()
        )


@pytest.mark.parametrize("k", [[0], [], [1.5], [-1], None])
def test_impossible_cutoffs_are_refused(k):
    with pytest.raises(UserError, match="metric.ndcg.k"):
        NDCG(1, k)


def test_mrr_has_no_cutoffs():
    with pytest.raises(UserError, match="leave metric.mrr.k out"):
        MRR(1, [10])


@pytest.mark.parametrize("metric", [HitRate(1, [10]), Recall(1, [10]), NDCG(1, [10]), MRR(1)])
def test_an_empty_batch_changes_nothing(metric):
    metric.update(RANK, ALL)
    metric.update(RANK[:0, :1], ALL[:0, :1])
    found = metric.compute()
    metric.reset()
    assert torch.equal(found, value(metric))
