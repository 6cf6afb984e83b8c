"""Loss arithmetic against numbers worked out by hand and against plain NumPy."""

import math

import numpy as np
import pytest
import torch

from tests.helpers.losses import make_batch
from twotower.losses import functional as F
from twotower.losses.bpr import pairwise_logistic
from twotower.losses.multi_objective import masked_bce
from twotower.types import Towers


def test_own_logits_by_hand():
    # user (1, 2); items (3, 0), (0, 1), (1, 1): scores 3, 2, 3; temperature 0.5 doubles them
    towers = Towers(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    batch = make_batch([2], [[0, 1]], num_items=3, log_q=[0.1, 0.2, 0.3])
    assert F.own_logits(towers, batch, 0.5).tolist() == [[6.0, 6.0, 4.0]]
    # log q is subtracted after the temperature: 6 - .3, 6 - .1, 4 - .2
    torch.testing.assert_close(
        F.own_logits(towers, batch, 0.5, correct_log_q=True), torch.tensor([[5.7, 5.9, 3.8]])
    )


def test_own_logits_mask_a_negative_equal_to_the_positive():
    towers = Towers(torch.ones(1, 2), torch.ones(2, 2))
    logits = F.own_logits(towers, make_batch([1], [[0, 1]], num_items=2), 1.0)
    assert logits.tolist() == [[2.0, 2.0, -math.inf]]
    assert F.binary_cross_entropy(logits).isfinite()


def test_shared_logits_by_hand():
    # scores of user 0 with items 0, 1, 2: 1, 2, 3, of user 1: 2, 4, 6; temperature 2 halves them.
    # Item 0 was drawn twice (+ log 2), item 1 not at all, item 2 once. Positives 1 and 0 count once
    # in their own rows, however often drawn.
    towers = Towers(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0], [3.0]]))
    batch = make_batch([1, 0], num_draws=[2, 0, 1], num_items=3, log_q=[-1.0, -2.0, -3.0])
    expected = [[0.5 + math.log(2), 1.0, 1.5], [1.0, -math.inf, 3.0]]
    torch.testing.assert_close(
        F.shared_logits(towers, batch, 2.0, correct_log_q=False), torch.tensor(expected)
    )
    with_log_q = [[0.5 + math.log(2) + 1, 3.0, 4.5], [2.0, -math.inf, 6.0]]
    torch.testing.assert_close(
        F.shared_logits(towers, batch, 2.0, correct_log_q=True), torch.tensor(with_log_q)
    )


def test_shared_softmax_equals_a_loop_over_every_draw():
    """Distinct items with ``+ log n`` against a NumPy loop with one column for every draw."""
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    positive, draws = [4, 0, 2], [0, 0, 1, 3, 3, 3, 4]
    log_q = np.log([0.1, 0.2, 0.3, 0.15, 0.25])
    total = 0.0
    for row, target in enumerate(positive):

        def logit(column, row=row):
            return user[row] @ item[column] / 0.3 - log_q[column]

        columns = [logit(target)] + [logit(draw) for draw in draws if draw != target]
        total += np.log(np.exp(columns).sum()) - columns[0]
    batch = make_batch(
        positive,
        num_draws=np.bincount(draws, minlength=5).tolist(),
        num_items=5,
        log_q=log_q.tolist(),
    )
    towers = Towers(torch.tensor(user), torch.tensor(item))
    logits = F.shared_logits(towers, batch, 0.3, correct_log_q=True)
    assert F.softmax_cross_entropy(logits, batch.positive).item() == pytest.approx(
        total / 3, rel=1e-5
    )


def test_binary_cross_entropy_by_hand():
    # -log σ(2) = .126928, -log(1 - σ(1)) = 1.313262, -log(1 - σ(-3)) = .048587; mean of the three
    value = F.binary_cross_entropy(torch.tensor([[2.0, 1.0, -3.0]])).item()
    assert value == pytest.approx((0.126928 + 1.313262 + 0.048587) / 3, abs=1e-5)


@pytest.mark.parametrize(("num_negatives", "floor"), [(1, 0.5032), (4, 0.6172), (10, 0.6586)])
def test_scores_between_0_and_1_bound_the_cross_entropy(num_negatives, floor):
    """ReLU before L2 keeps scores in [0, 1]: at best the positive scores 1 and each negative 0."""
    best = torch.tensor([[1.0] + [0.0] * num_negatives])
    assert F.binary_cross_entropy(best).item() == pytest.approx(floor, abs=1e-4)


def test_mimic_by_hand():
    # errors (1-3, 2-5) = (-2, -3) and (0-1, 1-1) = (-1, 0): squares 4 + 9 + 1 + 0 = 14; T = 10
    augmented = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    target = torch.tensor([[3.0, 5.0], [1.0, 1.0]])
    assert F.mimic(augmented, target, 10).item() == pytest.approx(1.4)
    assert F.mimic(augmented, target, 10, over_dim="mean").item() == pytest.approx(0.7)


def test_mimic_equals_equation_2_over_all_pairs():
    """``1/T Σ [y a + (1-y) p - p]²`` written out over positives and negatives."""
    rng = np.random.default_rng(1)
    a, p = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    y = np.array([1, 0, 0, 1, 0, 0])[:, None]
    expected = (((y * a + (1 - y) * p) - p) ** 2).sum() / 6
    chosen = y[:, 0] == 1
    value = F.mimic(torch.tensor(a[chosen]), torch.tensor(p[chosen]), 6)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_mimic_sends_no_gradient_into_the_target():
    augmented = torch.zeros(2, 3, requires_grad=True)
    target = torch.ones(2, 3, requires_grad=True)
    F.mimic(augmented, target, 4).backward()
    assert target.grad is None
    torch.testing.assert_close(augmented.grad, torch.full((2, 3), -2 / 4))  # 2 (0 - 1) / T


@pytest.mark.parametrize(
    "loss",
    [
        F.binary_cross_entropy,
        pairwise_logistic,
        lambda logits: F.softmax_cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)),
        lambda logits: masked_bce(logits, torch.ones(len(logits))),
        lambda logits: F.mimic(logits, logits.flip(0), 8),
    ],
    ids=["bce", "bpr", "softmax", "multi_objective", "mimic"],
)
def test_losses_are_float32_under_mixed_precision(loss):
    logits = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert loss(logits).dtype == torch.float32
    # bfloat16 would be off by 1e-3
    assert loss(logits).item() == pytest.approx(loss(logits.float()).item(), rel=1e-6)


def test_cross_entropy_has_torchs_gradient():
    logits = torch.tensor(
        [[0.3, -1.2, 2.0, float("-inf")], [1.0, 0.0, float("-inf"), -3.0]],
        dtype=torch.double,
        requires_grad=True,
    )
    label = torch.tensor([2, 0])
    expected = torch.nn.functional.cross_entropy(logits, label)
    given = F.softmax_cross_entropy(logits, label)
    assert given.item() == pytest.approx(expected.item(), rel=1e-12)
    (theirs,) = torch.autograd.grad(3 * expected, logits)
    (ours,) = torch.autograd.grad(3 * given, logits)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-15)
    finite = torch.randn(5, 7, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: F.softmax_cross_entropy(x, torch.tensor([0, 6, 3, 3, 1])), finite
    )
