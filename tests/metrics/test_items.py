"""Coverage, novelty and debiased metrics by hand and against loops in NumPy."""

import math

import numpy as np
import pytest
import torch

from twotower.errors import UserError
from twotower.metrics.coverage import Coverage
from twotower.metrics.debiased_hit_rate import DebiasedHitRate
from twotower.metrics.debiased_ndcg import DebiasedNDCG
from twotower.metrics.hit_rate import HitRate
from twotower.metrics.ndcg import NDCG
from twotower.metrics.novelty import Novelty
from twotower.types import HIDDEN_RANK

COUNT = torch.tensor([8, 4, 2, 1, 1, 0])  # 16 interactions; item 5 is cold
# User 0 has three lists' worth of items, user 1 two unseen items, user 2 none.
LISTS = torch.tensor([[0, 5, 1], [0, 2, -1], [-1, -1, -1]])
TARGET = torch.tensor([[1, 3], [0, -1], [5, -1]])
RANK = torch.tensor([[3, 12], [1, 0], [HIDDEN_RANK, 0]])
ALL = (TARGET >= 0)[:, :, None]


def made(kind, num_groups=1, count=COUNT, **settings):
    metric = kind(num_groups, **settings)
    metric.use_items(count)
    return metric


def value(metric, rank=RANK, group=ALL, target=TARGET, lists=LISTS):
    metric.update(rank, group, target, lists)
    return metric.compute()


def test_coverage_by_hand():
    # first items: {0}, two: {0, 5, 2}, three and more: {0, 5, 1, 2}, of 6 items
    found = value(made(Coverage, k=[1, 2, 3, 9]))
    assert found.tolist()[0] == pytest.approx([1 / 6, 3 / 6, 4 / 6, 4 / 6])


def test_novelty_by_hand():
    # -log2 of 8/16, 4/16, 2/16 are 1, 2, 3, and 4 of item 5, which counts as a single interaction:
    # lists (1, 4, 2) and (1, 3). The third user has no list.
    found = value(made(Novelty, k=[1, 2, 3, 9]))
    expected = [1, (5 / 2 + 4 / 2) / 2, (7 / 3 + 4 / 2) / 2, (7 / 3 + 4 / 2) / 2]
    assert found.tolist()[0] == pytest.approx(expected)


def test_debiased_by_hand():
    # weights at power 1: 1/4, 1 of user 0 (ranks 3, 12), 1/8 of user 1 (rank 1), and 1 of a cold
    # target that is hidden; their sum is 2.375
    found = value(made(DebiasedHitRate, k=[1, 10, 20], power=1))[0]
    expected = [0.125 / 2.375, 0.375 / 2.375, 1.375 / 2.375]
    assert found.tolist() == pytest.approx(expected)
    # gains at 20: 1/log2(4) = .5, 1/log2(13) = .270238, 1
    found = value(made(DebiasedNDCG, k=[10, 20], power=1))[0]
    assert found.tolist() == pytest.approx([0.25 / 2.375, (0.25 + 0.270238) / 2.375], abs=1e-6)


def test_groups_of_targets():
    group = torch.zeros(3, 2, 3, dtype=torch.bool)
    group[:, :, 0] = TARGET >= 0
    group[0, :, 1] = True  # user 0's targets; nothing in group 2
    found = value(made(DebiasedHitRate, 3, k=[10], power=1), group=group)[:, 0]
    assert found[:2].tolist() == pytest.approx([0.375 / 2.375, 0.25 / 1.25]) and found[2].isnan()
    for kind in (Coverage, Novelty):  # a list belongs to no target
        found = value(made(kind, 3, k=[2]), group=group)[:, 0]
        assert found[0] > 0 and found[1:].isnan().all()


def random_users(num_targets=1):
    rng = np.random.default_rng(0)
    count = rng.integers(0, 50, 30)
    target = np.array([rng.permutation(30)[:num_targets] for _ in range(40)])
    rank = np.array([1 + rng.permutation(30)[:num_targets] for _ in range(40)])
    lists = np.array([rng.permutation(30)[:12] for _ in range(40)])
    return count, target, rank, lists


def test_against_loops_in_numpy():
    count, target, rank, lists = random_users(num_targets=3)
    total = gain_sum = hit_sum = 0.0
    for targets, ranks in zip(target, rank, strict=True):
        for item, place in zip(targets, ranks, strict=True):
            weight = max(count[item], 1) ** -0.7
            total += weight
            hit_sum += weight * (place <= 9)
            gain_sum += weight * (place <= 9) / math.log2(1 + place)
    share = np.maximum(count, 1) / count.sum()
    news = np.mean([np.mean([-math.log2(share[item]) for item in row[:5]]) for row in lists])
    tensors = [torch.tensor(x) for x in (rank, np.ones((40, 3, 1), dtype=bool), target, lists)]
    for kind, settings, expected in (
        (DebiasedHitRate, {"k": [9], "power": 0.7}, hit_sum / total),
        (DebiasedNDCG, {"k": [9], "power": 0.7}, gain_sum / total),
        (Novelty, {"k": [5]}, news),
        (Coverage, {"k": [1]}, len(set(lists[:, 0])) / 30),
    ):
        found = value(made(kind, count=torch.tensor(count), **settings), *tensors).item()
        assert found == pytest.approx(expected, abs=1e-12), kind


def test_without_weights_and_with_one_target_they_are_the_plain_metrics():
    count, target, rank, _ = random_users()
    given = torch.tensor(rank), torch.ones(40, 1, 1, dtype=torch.bool)
    for debiased, kind in ((DebiasedHitRate, HitRate), (DebiasedNDCG, NDCG)):
        plain = kind(1, [5, 20])
        plain.update(*given)
        metric = made(debiased, count=torch.tensor(count), k=[5, 20], power=0)
        found = value(metric, *given, torch.tensor(target))
        torch.testing.assert_close(found, plain.compute(), rtol=0, atol=1e-12)


KINDS = [
    (Coverage, {}),
    (Novelty, {}),
    (DebiasedHitRate, {"power": 0.5}),
    (DebiasedNDCG, {"power": 0.5}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_batches_and_processes_add_up(kind, settings):
    whole = value(made(kind, k=[2], **settings))
    parts = [made(kind, k=[2], **settings) for _ in range(3)]
    one = made(kind, k=[2], **settings)
    for row, part in enumerate(parts):
        own = [x[row : row + 1] for x in (RANK, ALL, TARGET, LISTS)]
        part.update(*own)
        one.update(*own)
        one.update(*(x[:0] for x in own))  # an empty batch changes nothing
    torch.testing.assert_close(one.compute(), whole, rtol=0, atol=1e-12)
    together = made(kind, k=[2], **settings)
    together._update_count = 1
    for name, reduce in together._reductions.items():  # as torchmetrics adds processes
        states = torch.stack([getattr(part, name) for part in parts])
        setattr(together, name, reduce(states))
    torch.testing.assert_close(together.compute(), whole, rtol=0, atol=1e-12)
    one.reset()
    torch.testing.assert_close(value(one), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_counts_are_in_no_checkpoint_and_stay_in_float64(kind, settings):
    metric = made(kind, k=[2], **settings)
    assert not metric.state_dict()
    found = metric.to(torch.bfloat16)
    assert found.item_count.dtype == torch.float64


@pytest.mark.parametrize("power", [-0.1, math.nan, "1"])
def test_impossible_powers_are_refused(power):
    with pytest.raises(UserError, match=r"metric\.debiased_ndcg\.power"):
        DebiasedNDCG(1, [10], power)
