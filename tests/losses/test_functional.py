"""Loss arithmetic against numbers worked out by hand and against plain NumPy."""

import math

import numpy as np
import pytest
import torch

from twotower.losses import functional as F
from twotower.types import Batch, Towers


def make_batch(positive, negative=None, num_draws=None, num_items=None, log_q=None, category=None, num_pairs=1):
    num_items = num_items or 1 + max(positive)
    return Batch(
        user={},
        item={},
        item_index=torch.arange(num_items),
        category=torch.tensor(category if category is not None else [0] * num_items),
        positive=torch.tensor(positive),
        negative=None if negative is None else torch.tensor(negative),
        num_draws=None if num_draws is None else torch.tensor(num_draws),
        log_q=torch.tensor(log_q if log_q is not None else [0.0] * num_items),
        num_pairs=num_pairs,
    )


def test_own_logits_by_hand():
    # user (1, 2); items (3, 0), (0, 1), (1, 1): inner products 3, 2, 3; temperature 0.5 doubles them
    towers = Towers(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    batch = make_batch([2], [[0, 1]], num_items=3, log_q=[0.1, 0.2, 0.3])
    assert F.own_logits(towers, batch, 0.5).tolist() == [[6.0, 6.0, 4.0]]
    # log q is subtracted after the temperature: 6 - .3, 6 - .1, 4 - .2
    torch.testing.assert_close(F.own_logits(towers, batch, 0.5, correct_log_q=True), torch.tensor([[5.7, 5.9, 3.8]]))


def test_own_logits_mask_a_negative_equal_to_the_positive():
    towers = Towers(torch.ones(1, 2), torch.ones(2, 2))
    logits = F.own_logits(towers, make_batch([1], [[0, 1]], num_items=2), 1.0)
    assert logits.tolist() == [[2.0, 2.0, -math.inf]]
    assert F.binary_cross_entropy(logits).isfinite()


def test_shared_logits_by_hand():
    # scores of user 0 with items 0, 1, 2: 1, 2, 3, of user 1: 2, 4, 6; temperature 2 halves them. Item 0 was drawn twice
    # (+ log 2), item 1 not at all, item 2 once. Positives 1 and 0 stand in their own row once, however often drawn.
    towers = Towers(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0], [3.0]]))
    batch = make_batch([1, 0], num_draws=[2, 0, 1], num_items=3, log_q=[-1.0, -2.0, -3.0])
    expected = [[0.5 + math.log(2), 1.0, 1.5], [1.0, -math.inf, 3.0]]
    torch.testing.assert_close(F.shared_logits(towers, batch, 2.0, correct_log_q=False), torch.tensor(expected))
    with_log_q = [[0.5 + math.log(2) + 1, 3.0, 4.5], [2.0, -math.inf, 6.0]]
    torch.testing.assert_close(F.shared_logits(towers, batch, 2.0, correct_log_q=True), torch.tensor(with_log_q))


def test_shared_softmax_equals_a_loop_over_every_draw():
    """The distinct items with ``+ log n`` against a NumPy loop in float64 in which every draw is a column of its own."""
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
    batch = make_batch(positive, num_draws=np.bincount(draws, minlength=5).tolist(), num_items=5, log_q=log_q.tolist())
    towers = Towers(torch.tensor(user), torch.tensor(item))
    logits = F.shared_logits(towers, batch, 0.3, correct_log_q=True)
    assert F.softmax_cross_entropy(logits, batch.positive).item() == pytest.approx(total / 3, rel=1e-5)


def test_binary_cross_entropy_by_hand():
    # -log σ(2) = .126928, -log(1 - σ(1)) = 1.313262, -log(1 - σ(-3)) = .048587; mean over the three pairs
    value = F.binary_cross_entropy(torch.tensor([[2.0, 1.0, -3.0]])).item()
    assert value == pytest.approx((0.126928 + 1.313262 + 0.048587) / 3, abs=1e-5)


@pytest.mark.parametrize(("num_negatives", "floor"), [(1, 0.5032), (4, 0.6172), (10, 0.6586)])
def test_scores_between_0_and_1_bound_the_cross_entropy(num_negatives, floor):
    """ReLU before L2 keeps scores in [0, 1]: at best the positive scores 1 and each negative 0."""
    best = torch.tensor([[1.0] + [0.0] * num_negatives])
    assert F.binary_cross_entropy(best).item() == pytest.approx(floor, abs=1e-4)


def test_mimic_by_hand():
    # errors (1-3, 2-5) = (-2, -3) and (0-1, 1-1) = (-1, 0): squares 4 + 9 + 1 + 0 = 14; over T = 10 pairs
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


# Category 0: x = (0,0), (2,0), (1,3), mean (1,1): centred (-1,-1), (1,-1), (0,2): scatter [[2, 0], [0, 6]], / (3-1)
# Category 1: x = (0,0), (4,2), mean (2,1): centred ±(2,1): scatter [[8, 4], [4, 2]], / (2-1)
ITEMS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0], [0.0, 0.0], [4.0, 2.0]])
CATEGORY = torch.tensor([0, 0, 0, 1, 1])
ONE_EACH = torch.ones(5)


def test_category_covariance_by_hand():
    covariance, count = F.category_covariance(ITEMS, CATEGORY, ONE_EACH, 3)
    assert covariance.tolist() == [[[1.0, 0.0], [0.0, 3.0]], [[8.0, 4.0], [4.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert count.tolist() == [3, 2, 0]


def test_category_alignment_by_hand():
    # C_major - C_1 = [[-7, -4], [-4, 1]]: 49 + 16 + 16 + 1 = 82
    assert F.category_alignment(ITEMS, CATEGORY, ONE_EACH, 3).item() == pytest.approx(82)
    # by 1/n: [[2/3 - 4, -2], [-2, 2 - 1]]: 11.1111 + 4 + 4 + 1
    biased = F.category_alignment(ITEMS, CATEGORY, ONE_EACH, 3, unbiased=False)
    assert biased.item() == pytest.approx((10 / 3) ** 2 + 9)


def test_category_alignment_skips_missing_and_small_categories():
    item = torch.cat([ITEMS, torch.tensor([[50.0, -70.0], [9.0, 9.0]])])
    category = torch.cat([CATEGORY, torch.tensor([-1, 2])])  # one without a category, one alone in its category
    weight = torch.ones(7)
    assert F.category_alignment(item, category, weight, 3).item() == pytest.approx(82)
    assert F.category_alignment(item, category, weight, 3, min_items=3).item() == 0  # only the major category is left
    assert F.category_alignment(item, category, weight, 3, min_items=1).isfinite()


def test_category_alignment_counts_an_item_as_often_as_it_stands_in_the_batch():
    weight = torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0])
    repeated = torch.cat([ITEMS, ITEMS[3:4]])
    plain = F.category_alignment(repeated, torch.tensor([0, 0, 0, 1, 1, 1]), torch.ones(6), 2)
    assert F.category_alignment(ITEMS, CATEGORY, weight, 2).item() == pytest.approx(plain.item())


def test_category_alignment_major_is_the_largest_and_the_first_among_equals():
    rng = np.random.default_rng(2)
    item = torch.tensor(rng.normal(size=(9, 2)), dtype=torch.float32)
    category = torch.tensor([2, 2, 2, 1, 1, 1, 0, 0, 0])
    c = [np.cov(item[category == index].numpy().T) for index in range(3)]
    expected = ((c[0] - c[1]) ** 2).sum() + ((c[0] - c[2]) ** 2).sum()
    assert F.category_alignment(item, category, torch.ones(9), 3).item() == pytest.approx(expected, rel=1e-4)
    larger = torch.tensor([1.0, 1, 1, 2, 1, 1, 1, 1, 1])  # now category 1 is the largest
    c[1] = np.cov(item[category == 1].numpy().T, fweights=[2, 1, 1])
    expected = ((c[1] - c[0]) ** 2).sum() + ((c[1] - c[2]) ** 2).sum()
    assert F.category_alignment(item, category, larger, 3).item() == pytest.approx(expected, rel=1e-4)


def test_category_alignment_of_one_category_is_a_zero_in_the_graph():
    item = torch.randn(4, 2, requires_grad=True)
    loss = F.category_alignment(item, torch.zeros(4, dtype=torch.long), torch.ones(4), 1)
    loss.backward()
    assert loss.item() == 0
    assert item.grad is not None and item.grad.abs().sum() == 0


def test_category_alignment_gradient_is_right_and_reaches_both_sides():
    item = ITEMS.double().requires_grad_()

    def loss(x):
        return F.category_alignment(x, CATEGORY, ONE_EACH, 3)

    loss(item).backward()
    assert (item.grad.abs().sum(1) > 0).all()  # the major category's items too
    step = torch.zeros_like(item)
    step[1, 0] = 1e-2
    numeric = (loss(item + step) - loss(item - step)) / 2e-2
    assert item.grad[1, 0].item() == pytest.approx(numeric.item(), rel=1e-3)


def test_category_alignment_stays_in_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.category_alignment(ITEMS.bfloat16() * 1.001, CATEGORY, ONE_EACH, 3)
    assert loss.dtype == torch.float32


def test_pair_counts():
    # positives 0, 2; own negatives (1, 1) and (2, 0)
    assert F.pair_counts(make_batch([0, 2], [[1, 1], [2, 0]], num_items=3)).tolist() == [2, 2, 2]
    # shared: drawn 0, 3, 1 times
    assert F.pair_counts(make_batch([0, 2], num_draws=[0, 3, 1], num_items=3)).tolist() == [1, 3, 2]
