"""Relative differences with their errors, by hand."""

import numpy as np
import pytest

from tests.report.world import run_of
from twotower.metrics.hit_rate import HitRate
from twotower.report.estimate import combine, estimate, variances
from twotower.report.ranks import Ranks
from twotower.report.variants import Variant

HIT_RATE = HitRate(1, [10])


def variant(values, ranks=None, first=0):
    runs = []
    for place, value in enumerate(values):
        known = "none"
        if ranks:
            users = np.arange(len(ranks[place]))
            known = Ranks(users, users, users, np.array(ranks[place]))
        runs.append(run_of(first + place, ranks=known, test={"hit_rate@10": value}))
    return Variant("any", tuple(runs))


def test_the_error_over_seeds_is_that_of_a_ratio():
    # means .22 and .2: +10 %; of each seed x - 1.1 y, in units of .2: .11 - .11 = 0,
    # .21 - .22 = -.01 -> -.05, .34 - .33 = .01 -> .05; sd .05, error .05 / √3
    found = estimate(variant([0.11, 0.21, 0.34]), variant([0.1, 0.2, 0.3]), "hit_rate@10", HIT_RATE)
    assert found.value == pytest.approx(0.1) and found.absolute == pytest.approx(0.02)
    assert found.over_seeds == found.error == pytest.approx(0.05 / 3**0.5)
    assert found.over_users is None and found.freedom == pytest.approx(2)
    assert (found.num_seeds, found.seed_freedom) == (3, 2)
    assert found.seed_variance == pytest.approx(0.05**2)


def test_different_seeds_are_two_sides():
    # variances 1e-4 and 4e-4 of three runs each, in units of .2 and with the ratio 1.1
    found = estimate(
        variant([0.21, 0.22, 0.23]), variant([0.18, 0.2, 0.22], first=5), "hit_rate@10", HIT_RATE
    )
    one, other = 1e-4 / 0.04 / 3, 1.21 * 4e-4 / 0.04 / 3
    assert found.error**2 == pytest.approx(one + other)
    assert found.freedom == pytest.approx((one + other) ** 2 / (one**2 / 2 + other**2 / 2))
    assert (found.num_seeds, found.seed_freedom) == (pytest.approx(3), 4)


def test_one_seed_or_a_control_without_any_hit_has_no_estimate():
    one, two, zero = variant([0.1]), variant([0.1, 0.2]), variant([0.0, 0.0])
    for pair in ((one, two), (two, one), (two, zero)):
        assert estimate(*pair, "hit_rate@10", HIT_RATE) is None


def test_seeds_and_users_are_crossed():
    # rows are seeds, columns users: means of rows 1 and 3, of columns 0 2 4, of all 2
    # over seeds: variance 2 / 2 = 1; over users: variance 4 / 3; the rests are ±1 ∓1 0 -> squares
    # sum to 4, by (2 - 1) * (3 - 1) = 2 and the six cells: 1 / 3
    table = np.array([[0.0, 0.0, 3.0], [0.0, 4.0, 5.0]])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + 2
    assert rest.tolist() == [[1, -1, 0], [-1, 1, 0]]
    found = combine(2.0, 0.0, [table.mean(1)], [table])
    assert found.over_seeds**2 == pytest.approx(1)
    assert found.over_users**2 == pytest.approx(4 / 3)
    assert found.error**2 == pytest.approx(4 / 3 + 1 - 1 / 3)
    # Satterthwaite: 2² / (1² / 1 + (4 / 3)² / 2)
    assert found.freedom == pytest.approx(4 / (1 + 8 / 9))
    assert found.seed_variance == pytest.approx(2 * (1 - 1 / 3))


def test_users_count_with_ranks():
    # hits of three users: variant 1 1 0 and 1 1 1, control 1 0 0 and 1 0 1
    one = variant([2 / 3, 1], [[1, 1, 99], [1, 1, 1]])
    other = variant([1 / 3, 2 / 3], [[1, 99, 99], [1, 99, 1]])
    found = estimate(one, other, "hit_rate@10", HIT_RATE)
    assert found.value == pytest.approx(2 / 3)  # 5 / 6 against 1 / 2
    # x - 5 / 3 y in units of 1 / 2, mean over seeds: -4/3, 2, -2/3; variance 28 / 9
    assert found.over_users == pytest.approx((28 / 9 / 3) ** 0.5)


def test_the_variance_over_seeds_is_pooled_for_weights():
    def own(seed_variance, num_seeds, over_users):
        return combine(0.0, 0.0, [np.zeros(num_seeds)], None)._replace(
            seed_variance=seed_variance, over_users=over_users
        )

    # (2 * 1 + 4 * 4) / 6 = 3, over 3 and 5 seeds
    weights = variances([own(1, 3, 0.1), own(4, 5, 0.2)])
    assert weights == pytest.approx([3 / 3 + 0.01, 3 / 5 + 0.04])
    # without ranks as the least precise; a negative variance is none
    assert variances([own(-1, 3, 0.1), own(-1, 3, None)]) == pytest.approx([0.01, 0.01])
