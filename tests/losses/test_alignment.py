"""Category alignment and each of its variants: by hand, and against NumPy in float64."""

import numpy as np
import pytest
import torch

from tests.conftest import in_two_processes
from tests.helpers.losses import PAPER, make_alignment, make_batch
from twotower.errors import UserError
from twotower.losses.alignment import CategoryAlignment, pair_counts
from twotower.losses.covariance import CategoryCovariance, category_covariance
from twotower.losses.running_covariance import RunningCovariance
from twotower.types import Schema, Towers


def batch_of(category, weight=None):
    """A batch in which each item stands ``weight`` times, once as a positive."""
    weight = [1] * len(category) if weight is None else weight
    return make_batch(
        list(range(len(category))), num_draws=[count - 1 for count in weight], category=category
    )


def align(loss, item, category, weight=None):
    return loss(Towers(item[:0], item), batch_of(category, weight))


# Category 0: x = (0,0), (2,0), (1,3), mean (1,1): centred (-1,-1), (1,-1), (0,2):
#   scatter [[2, 0], [0, 6]], / (3-1)
# Category 1: x = (0,0), (4,2), mean (2,1): centred ±(2,1): scatter [[8, 4], [4, 2]], / (2-1)
# Category 2: x = (5,5), (7,5), mean (6,5): centred ±(1,0): scatter [[2, 0], [0, 0]], / (2-1)
# Differences: C0 - C1 = [[-7, -4], [-4, 1]]: 49 + 16 + 16 + 1 = 82; C0 - C2 = [[-1, 0], [0, 3]]: 10
ITEMS = torch.tensor(
    [[0.0, 0.0], [2.0, 0.0], [1.0, 3.0], [0.0, 0.0], [4.0, 2.0], [5.0, 5.0], [7.0, 5.0]]
)
CATEGORY = [0, 0, 0, 1, 1, 2, 2]


def test_covariance_by_hand():
    found = category_covariance(ITEMS[:5], torch.tensor(CATEGORY[:5]), torch.ones(5), 3)
    assert found.covariance[:2].tolist() == [[[1.0, 0.0], [0.0, 3.0]], [[8.0, 4.0], [4.0, 2.0]]]
    assert found.n.tolist() == [3, 2, 0, 0] and found.category.tolist() == [0, 1, 3, 3]


def test_covariance_memory_follows_the_batch_not_the_categories():
    """3,913 categories and five items, one without category: at most five matrices."""
    found = category_covariance(
        ITEMS[:5], torch.tensor([3912, 7, 3912, -1, 7]), torch.ones(5), 3913
    )
    assert found.covariance.shape == (5, 2, 2)
    assert found.category.tolist() == [7, 3912, 3913, 3913, 3913]
    assert found.n.tolist() == [2, 2, 0, 0, 0]
    # (2,0), (4,2): centred ±(1,1); (0,0), (1,3): centred ±(.5,1.5)
    assert found.covariance[0].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert found.covariance[1].tolist() == [[0.5, 1.5], [1.5, 4.5]]


def test_paper_by_hand():
    assert align(make_alignment(3), ITEMS[:5], CATEGORY[:5]).item() == pytest.approx(82)
    assert align(make_alignment(3), ITEMS, CATEGORY).item() == pytest.approx(82 + 10)
    # by 1/n: C0 = [[2/3, 0], [0, 2]], C1 = [[4, 2], [2, 1]]: (10/3)² + 4 + 4 + 1
    biased = align(make_alignment(3, unbiased=False), ITEMS[:5], CATEGORY[:5])
    assert biased.item() == pytest.approx((10 / 3) ** 2 + 9)


def reference(
    item, category, weight, major=None, min_items=2, weighting="none", over_categories="sum"
):
    """Eq. 3 and its settings as a loop in NumPy, float64."""
    n = {c: weight[category == c].sum() for c in sorted(set(category.tolist()) - {-1})}
    n = {c: size for c, size in n.items() if size >= min_items}
    covariance = {c: np.cov(item[category == c].T, fweights=weight[category == c]) for c in n}
    major = max(n, key=lambda c: (n[c], -c)) if major is None else major
    if major not in n or len(n) < 2:
        return 0.0
    others = [c for c in n if c != major]
    root = np.array([n[c] ** 0.5 if weighting == "sqrt_n" else 1.0 for c in others])
    distance = np.array([((covariance[c] - covariance[major]) ** 2).sum() for c in others])
    total = (distance * root / root.mean()).sum()
    return total / len(others) if over_categories == "mean" else total


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"count": "items"},
        {"min_items": 7},
        {"weighting": "sqrt_n"},
        {"over_categories": "mean"},
        {"weighting": "sqrt_n", "over_categories": "mean", "min_items": 4},
        {"major": "global"},
        {"major": "global", "count": "items", "weighting": "sqrt_n"},
    ],
)
def test_settings_equal_numpy(settings):
    """40 items of 9 categories, some missing; global major 5, which is not the batch's largest."""
    rng = np.random.default_rng(3)
    item = rng.normal(size=(40, 4))
    category = rng.integers(-1, 9, 40)
    weight = rng.integers(1, 5, 40)
    loss = make_alignment(9, counts=[1, 1, 1, 1, 1, 50, 1, 1, 1], **settings)
    value = align(loss, torch.tensor(item), category.tolist(), weight.tolist())
    assert value.dtype == torch.float64
    counted = np.ones(40, int) if settings.get("count") == "items" else weight
    known = {
        key: settings[key]
        for key in ("min_items", "weighting", "over_categories")
        if key in settings
    }
    expected = reference(
        item, category, counted, 5 if settings.get("major") == "global" else None, **known
    )
    assert expected > 0 and value.item() == pytest.approx(expected, rel=1e-9)
    if settings:
        # the setting matters here
        assert expected != pytest.approx(reference(item, category, weight), rel=1e-3)


def test_missing_and_small_categories_are_left_out():
    item = torch.cat([ITEMS[:5], torch.tensor([[50.0, -70.0], [9.0, 9.0]])])
    category = [*CATEGORY[:5], -1, 2]  # one without a category, one alone in its category
    assert align(make_alignment(3), item, category).item() == pytest.approx(82)
    # only the major category is left
    assert align(make_alignment(3, min_items=3), item, category).item() == 0
    # alone in its category, covariance zero: ‖C0‖² = 1 + 9 more
    assert align(make_alignment(3, min_items=1), item, category).item() == pytest.approx(82 + 10)


def test_mean_over_categories_by_hand():
    value = align(make_alignment(3, over_categories="mean"), ITEMS, CATEGORY)
    assert value.item() == pytest.approx((82 + 10) / 2)


def test_sqrt_n_by_hand():
    # category 1 counts 8 (its items 4 and 4): C1 = scatter 4 [[8, 4], [4, 2]] / 7; now the major.
    # Sizes of the others 3 and 2: weights √3 and √2 over their mean
    c0, c2 = np.array([[1, 0], [0, 3]]), np.array([[2, 0], [0, 0]])
    c1 = np.array([[8, 4], [4, 2]]) * 4 / 7
    mean = (3**0.5 + 2**0.5) / 2
    expected = 3**0.5 / mean * ((c1 - c0) ** 2).sum() + 2**0.5 / mean * ((c1 - c2) ** 2).sum()
    value = align(make_alignment(3, weighting="sqrt_n"), ITEMS, CATEGORY, [1, 1, 1, 4, 4, 1, 1])
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_items_count_once_or_as_often_as_they_occur():
    weight = [1, 1, 1, 2, 1]
    repeated = align(make_alignment(2), torch.cat([ITEMS[:5], ITEMS[3:4]]), [0, 0, 0, 1, 1, 1])
    by_pairs = align(make_alignment(2), ITEMS[:5], CATEGORY[:5], weight)
    assert by_pairs.item() == pytest.approx(repeated.item())
    by_items = align(make_alignment(2, count="items"), ITEMS[:5], CATEGORY[:5], weight)
    assert by_items.item() == pytest.approx(82)


def test_the_major_is_the_first_of_the_largest_categories():
    rng = np.random.default_rng(2)
    item, category = rng.normal(size=(9, 2)), [2, 2, 2, 1, 1, 1, 0, 0, 0]
    c = [np.cov(item[np.array(category) == index].T) for index in range(3)]
    expected = ((c[0] - c[1]) ** 2).sum() + ((c[0] - c[2]) ** 2).sum()
    assert align(make_alignment(3), torch.tensor(item), category).item() == pytest.approx(expected)
    larger = [1, 1, 1, 2, 1, 1, 1, 1, 1]  # now category 1 is the largest
    c[1] = np.cov(item[3:6].T, fweights=[2, 1, 1])
    expected = ((c[1] - c[0]) ** 2).sum() + ((c[1] - c[2]) ** 2).sum()
    assert align(make_alignment(3), torch.tensor(item), category, larger).item() == pytest.approx(
        expected
    )


def test_global_major_by_hand():
    # the training data's largest category is 2: C2 - C0: 10;
    # C2 - C1 = [[-6, -4], [-4, -2]]: 36 + 16 + 16 + 4 = 72
    loss = make_alignment(3, counts=[5, 5, 6], major="global")
    assert align(loss, ITEMS, CATEGORY).item() == pytest.approx(10 + 72)
    assert align(loss, ITEMS[:5], CATEGORY[:5]).item() == 0  # not in the batch
    assert align(loss, ITEMS[:6], CATEGORY[:6]).item() == 0  # one item of it
    # the first of equal size: C1 - C0: 82, C1 - C2: 72
    tied = make_alignment(3, counts=[5, 6, 6], major="global")
    assert align(tied, ITEMS, CATEGORY).item() == pytest.approx(82 + 72)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"major": "global"},
        {"momentum": 0.5},
        {"weighting": "sqrt_n", "over_categories": "mean"},
    ],
)
def test_one_category_is_a_zero_in_the_graph(changes):
    item = torch.randn(4, 2, requires_grad=True)
    loss = align(make_alignment(1, counts=[4], **changes), item, [0] * 4)
    loss.backward()
    assert loss.item() == 0 and (item.grad == 0).all()
    item = torch.ones(4, 2, requires_grad=True)  # all of one category missing, all equal
    align(make_alignment(1, counts=[4], **changes), item, [-1] * 4).backward()
    assert (item.grad == 0).all()


@pytest.mark.parametrize(
    "changes",
    [{}, {"major": "global", "weighting": "sqrt_n"}, {"over_categories": "mean", "count": "items"}],
)
def test_gradient_is_the_derivative(changes):
    loss = make_alignment(3, counts=[3, 2, 9], **changes)
    item = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    category, weight = [0, 2, 2, 1, 0, 1, 2, 1, 1], [1, 2, 1, 1, 3, 1, 1, 2, 1]
    assert torch.autograd.gradcheck(lambda x: align(loss, x, category, weight), item)


def test_detach_major_stops_only_its_gradient():
    both, other = (ITEMS.clone().requires_grad_() for _ in range(2))
    first, second = (
        align(make_alignment(3), both, CATEGORY),
        align(make_alignment(3, detach_major=True), other, CATEGORY),
    )
    first.backward()
    second.backward()
    assert first.item() == second.item()
    assert (both.grad[:3].abs().sum(1) > 0).all() and (other.grad[:3] == 0).all()
    assert torch.equal(both.grad[3:], other.grad[3:]) and (other.grad[3:].abs().sum(1) > 0).all()
    # by hand, item (5,5): C2 = 2 x xᵀ with x = half the difference,
    # so d/dx_00 of (C2 - C0)_00² is 2 (1) (-2)
    assert other.grad[5].tolist() == pytest.approx([-4.0, 0.0])


def test_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = align(make_alignment(3), ITEMS.bfloat16() * 1.001, CATEGORY)
    assert loss.dtype == torch.float32
    exact = align(make_alignment(3), (ITEMS.bfloat16() * 1.001).double(), CATEGORY)
    # bfloat16 products would be off by 1e-3
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


# A second batch: category 0 is (0,0), (2,0), (1,0): scatter [[2, 0], [0, 0]] / 2;
# category 1 is (0,0), (2,2): [[2, 2], [2, 2]]; category 2 is missing
LATER = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 2.0]])


def test_running_covariance_by_hand():
    loss = make_alignment(3, momentum=0.6)
    assert align(loss, ITEMS, CATEGORY).item() == pytest.approx(92)  # the first batch stands alone
    # second: shares are 1/2 (the even average of two batches; 1 - .6 is less):
    # C0 = ([[1, 0], [0, 3]] + [[1, 0], [0, 0]]) / 2,
    # C1 = ([[8, 4], [4, 2]] + [[2, 2], [2, 2]]) / 2: difference [[-4, -3], [-3, -.5]]
    assert align(loss, LATER, CATEGORY[:5]).item() == pytest.approx(16 + 9 + 9 + 0.25)
    # third: .4 of it and .6 of the past:
    # C0 = .6 [[1, 0], [0, 1.5]] + .4 [[1, 0], [0, 0]] = [[1, 0], [0, .9]],
    # C1 = .6 [[5, 3], [3, 2]] + .4 [[2, 2], [2, 2]] = [[3.8, 2.6], [2.6, 2]]
    assert align(loss, LATER, CATEGORY[:5]).item() == pytest.approx(2.8**2 + 2 * 2.6**2 + 1.1**2)
    assert loss.running.updates[:3].tolist() == [3, 3, 1]
    # a category that is not in the batch keeps its covariance
    assert loss.running.covariance[2].tolist() == [[2.0, 0.0], [0.0, 0.0]]
    loss.eval()
    align(loss, LATER, CATEGORY[:5])
    assert loss.running.updates[:3].tolist() == [3, 3, 1]  # only training moves it


def test_running_covariance_replaces_a_global_major_missing_in_the_batch():
    loss = make_alignment(3, counts=[1, 1, 9], major="global", momentum=0.6)
    assert align(loss, LATER, CATEGORY[:5]).item() == 0  # never seen
    align(loss, ITEMS, CATEGORY)
    # C2 = [[2, 0], [0, 0]] from before; this is the third batch for 0 and 1, with a share of .4:
    # the two before are averaged as above, so C0 = [[1, 0], [0, .9]], C1 = [[3.8, 2.6], [2.6, 2]]
    item = LATER.clone().requires_grad_()
    value = align(loss, item, CATEGORY[:5])
    assert value.item() == pytest.approx(1 + 0.9**2 + 1.8**2 + 2 * 2.6**2 + 2**2, rel=1e-6)
    value.backward()
    assert item.grad.abs().sum() > 0


def test_running_gradient_is_only_of_the_current_batch():
    """With the past held fixed, the derivative of the blended loss."""
    loss = make_alignment(2, momentum=0.75)
    for _ in range(3):
        align(loss, torch.randn(5, 2, dtype=torch.float64), CATEGORY[:5])
    past = loss.running.covariance.clone()
    assert not past.requires_grad
    item = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    align(loss, item, CATEGORY[:5]).backward()
    x = item.detach().clone().requires_grad_()
    blended = [
        0.75 * past[c] + 0.25 * torch.cov(x[[i for i in range(5) if CATEGORY[i] == c]].T)
        for c in range(2)
    ]
    (blended[0] - blended[1]).square().sum().backward()
    torch.testing.assert_close(item.grad, x.grad)


def test_running_covariance_is_saved_and_resumed_to_the_bit():
    torch.manual_seed(0)
    batches = [torch.randn(7, 4) for _ in range(6)]
    whole, first, second = (make_alignment(3, momentum=0.9) for _ in range(3))
    expected = [align(whole, item, CATEGORY) for item in batches]
    for item in batches[:3]:
        align(first, item, CATEGORY)
    second.load_state_dict(first.state_dict())
    found = [align(second, item, CATEGORY) for item in batches[3:]]
    assert all(torch.equal(a, b) for a, b in zip(found, expected[3:], strict=True))
    assert torch.equal(second.running.covariance, whole.running.covariance)
    second.load_state_dict(whole.state_dict())  # also over a state that is there
    fresh = make_alignment(3, momentum=0.9)
    fresh.load_state_dict(make_alignment(3, momentum=0.9).state_dict())  # and before any step


def test_a_running_covariance_too_large_is_refused():
    loss = RunningCovariance(3913, 0.9)
    category = torch.zeros(1, dtype=torch.long)
    current = CategoryCovariance(torch.zeros(1, 512, 512), torch.ones(1), category)
    message = r"3,913 covariances of 512 x 512, 3\.8 GiB: set loss\.alignment\.momentum=0"
    with pytest.raises(UserError, match=message):
        loss(current)


POSITIVES = ([0, 1, 5, 0, 6], [3, 1, 4, 5, 2])  # of two processes; items 1 and 5 are in both
# In-batch and own negatives differ between processes, other shared ones do not.
DRAWN = ([4, 2, 2], [6, 6, 3])


def aligned(rank, kind, settings):
    """Loss, item gradient and running covariance; ``rank`` None: rows of both processes in one."""
    ranks = (0, 1) if rank is None else (rank,)
    positive = sum((POSITIVES[r] for r in ranks), [])
    drawn = sum((DRAWN[r] for r in ((0,) if kind == "shared" else ranks)), [])
    distinct, row = torch.unique(torch.tensor(positive + drawn), return_inverse=True)
    at, draws = row[: len(positive)], torch.bincount(row[len(positive) :], minlength=len(distinct))
    if kind == "in_batch":
        draws = torch.bincount(row, minlength=len(distinct))
    batch = make_batch(at.tolist(), num_draws=draws.tolist(), num_items=len(distinct))
    batch = batch._replace(
        item_index=distinct, category=torch.tensor(CATEGORY)[distinct], in_batch=kind == "in_batch"
    )
    table = ITEMS.double().requires_grad_()
    loss = make_alignment(3, **settings)
    value = loss(Towers(table[:0], table[distinct]), batch)
    value.backward()
    running = [] if loss.running is None else loss.running.covariance.tolist()
    return value.item(), table.grad.tolist(), running


CASES = [
    ("shared", {}),
    ("in_batch", {"weighting": "sqrt_n"}),
    ("shared", {"count": "items", "min_items": 2}),
    ("in_batch", {"momentum": 0.6}),
    ("in_batch", {"min_items": 5, "over_categories": "mean", "detach_major": True}),
]


def worker(rank):
    return [aligned(rank, *case) for case in CASES]


@pytest.mark.slow
def test_alignment_uses_the_items_of_all_processes(tmp_path):
    found = in_two_processes(worker, tmp_path / "rendezvous")
    for case, first, second in zip(CASES, *found, strict=True):
        value, gradient, running = aligned(None, *case)
        assert first[0] == second[0] == pytest.approx(value, rel=1e-9) and value > 0, case
        both = (torch.tensor(first[1]) + torch.tensor(second[1])) / 2  # what DDP averages
        torch.testing.assert_close(both, torch.tensor(gradient), msg=str(case))
        torch.testing.assert_close(torch.tensor(first[2]), torch.tensor(running), msg=str(case))
        assert first[2] == second[2]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("major", "all"),
        ("count", "pair"),
        ("min_items", 0),
        ("weighting", "n"),
        ("over_categories", "max"),
        ("momentum", 1.0),
    ],
)
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(UserError, match=rf"loss\.alignment\.{setting}"):
        make_alignment(3, **{setting: value})


def test_a_global_major_needs_counts():
    with pytest.raises(UserError, match="prepare the data again"):
        CategoryAlignment(Schema((), (), 9, 9, 3), **{**PAPER, "major": "global"})


def test_pair_counts():
    # positives 0, 2; own negatives (1, 1) and (2, 0)
    assert pair_counts(make_batch([0, 2], [[1, 1], [2, 0]], num_items=3)).tolist() == [2, 2, 2]
    # shared: drawn 0, 3, 1 times
    assert pair_counts(make_batch([0, 2], num_draws=[0, 3, 1], num_items=3)).tolist() == [1, 3, 2]
