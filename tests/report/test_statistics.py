"""The statistics by hand, and by simulation where the truth is known."""

import math

import numpy as np
import pytest

from twotower.report.statistics import (
    Evidence,
    bootstrap,
    holm,
    over_seeds,
    over_users,
    seeds_needed,
    sign_flip,
    smallest_found,
    spread_over_seeds,
)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # sorted .01 .02 .04: times 3, 2, 1 is .03 .04 .04; never falling, never above 1
        ([0.04, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.5, 0.9], [1, 1]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(p, adjusted):
    corrected = holm([None, *(Evidence(0, 1, value, value) for value in p)])
    assert corrected[0] is None
    assert [test.adjusted for test in corrected[1:]] == pytest.approx(adjusted)


def test_over_seeds_pairs_by_seed():
    # differences .01 .02 .03: mean .02, sd .01, error .01/√3 = .005774;
    # t = 3.4641 with 2 degrees, half width 4.3027 * .005774
    test = over_seeds({0: 0.11, 1: 0.22, 2: 0.33}, {2: 0.3, 1: 0.2, 0: 0.1}, 0.95)
    assert (test.low, test.high) == pytest.approx((0.02 - 0.024842, 0.02 + 0.024842), abs=1e-5)
    # within ±t with 2 degrees: t / √(2 + t²)
    assert test.p == pytest.approx(1 - 3.4641 / math.sqrt(14), abs=1e-4)


def test_over_seeds_without_common_seeds_is_welch():
    # means 3 and 0; variances 1 and 4 over 3 each: error √(5/3);
    # Welch's degrees (5/3)² / ((1/3)²/2 + (4/3)²/2) = 2.941, whose t is 3.2187
    test = over_seeds({0: 2, 1: 3, 2: 4}, {5: -2, 6: 0, 7: 2}, 0.95)
    half = 3.2187 * math.sqrt(5 / 3)
    assert (test.low, test.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_one_seed_gives_no_test_over_seeds():
    assert over_seeds({0: 1.0}, {0: 0.5}, 0.95) is None
    assert over_seeds({0: 1.0, 1: 2.0}, {0: 0.5}, 0.95) is None


def test_runs_without_spread():
    test = over_seeds({0: 0.1, 1: 0.2}, {0: 0.1, 1: 0.2}, 0.95)
    assert (test.low, test.high, test.p) == (0, 0, 1)
    test = over_seeds({0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.25}, 0.95)
    assert (test.low, test.high, test.p) == (0.25, 0.25, 0)


def test_sign_flip_by_hand():
    # |±1 ±1 ±1 ±1| reaches 4 in 2 of 16 flips: p = .125
    p = sign_flip(np.ones(4), 20_000, np.random.default_rng(0))
    assert p == pytest.approx(0.125, abs=0.01)
    # the observed signs are one of the flips
    assert sign_flip(np.ones(200), 100, np.random.default_rng(0)) == 1 / 101
    assert sign_flip(np.zeros(5), 100, np.random.default_rng(0)) == 1


def test_the_bootstrap_of_hits_is_binomial():
    # 100 users, 30 of them gain 1: the mean of a draw is binomial(100, .3) / 100,
    # with 2.5 % and 97.5 % points at .21 and .39
    difference = np.repeat([1.0, 0.0], [30, 70])
    ends = bootstrap(difference, 20_000, 0.95, np.random.default_rng(0))
    assert ends == pytest.approx((0.21, 0.39), abs=0.011)
    assert bootstrap(np.zeros(5), 100, 0.95, np.random.default_rng(0)) == (0, 0)


def gains_of_equal_models(generator, num_users=300):
    """Differences of two models' NDCG: mostly zero, skewed for each model, alike for both."""
    hits = generator.random((2, num_users)) < 0.2
    gain = 1 / np.log2(1 + generator.integers(1, 11, (2, num_users)))
    return (hits * gain)[0] - (hits * gain)[1]


def test_equal_models_are_found_different_at_the_nominal_rate_and_intervals_cover():
    generator = np.random.default_rng(5)
    gains = [gains_of_equal_models(generator) for _ in range(400)]
    tests = [over_users(gain, 200, 0.95, seed) for seed, gain in enumerate(gains)]
    rejected = sum(test.p < 0.05 for test in tests)
    covered = sum(test.low <= 0 <= test.high for test in tests)
    # 400 trials at 5 %: 20 ± 4.4; three standard deviations either side
    assert 7 <= rejected <= 33, rejected
    assert 367 <= covered <= 393, covered


def test_a_planted_difference_is_found_and_covered():
    generator = np.random.default_rng(6)
    tests = []
    for seed in range(40):
        planted = 0.08 * (generator.random(300) < 0.75)  # .06 in the mean
        gain = gains_of_equal_models(generator) + planted
        tests.append(over_users(gain, 500, 0.95, seed))
    assert sum(test.p < 0.05 for test in tests) >= 36
    assert sum(test.low <= 0.06 <= test.high for test in tests) >= 34


def test_equal_trainings_over_seeds_are_found_different_at_the_nominal_rate():
    values = np.random.default_rng(7).normal(0.1, 0.005, (300, 2, 3))
    tests = [over_seeds(dict(enumerate(a)), dict(enumerate(b)), 0.95) for a, b in values]
    rejected = sum(test.p < 0.05 for test in tests)
    assert 4 <= rejected <= 26, rejected  # 15 ± 3 * 3.8
    # interval and test agree
    assert all((test.p < 0.05) == (test.low * test.high > 0) for test in tests)


@pytest.mark.parametrize(
    # the numbers of G*Power 3 for a paired t test: 5 %, two-sided, power 80 %
    ("difference", "seeds"),
    [(0.2, 5), (0.1, 10), (0.08, 15), (-0.05, 34), (0.02, None), (0, None), (9, 2), (1e9, 2)],
)
def test_seeds_needed(difference, seeds):
    assert seeds_needed(difference, 0.1, 0.05) == seeds


def test_seeds_needed_without_spread():
    assert seeds_needed(0.1, 0, 0.05) == 2 and seeds_needed(0, 0, 0.05) is None


def test_the_smallest_difference_that_is_found_takes_so_many_seeds():
    for num_seeds in (2, 3, 5, 34):
        least = smallest_found(num_seeds, 0.1, 0.05)
        assert seeds_needed(least, 0.1, 0.05) == num_seeds
        assert seeds_needed(0.99 * least, 0.1, 0.05) == num_seeds + 1
    assert smallest_found(2, 0.1, 0.05 / 1000) > smallest_found(2, 0.1, 0.05)


def test_so_many_seeds_find_a_true_difference_at_the_promised_rate():
    generator = np.random.default_rng(8)
    num_seeds = seeds_needed(0.004, 0.005, 0.05)
    assert num_seeds == 15
    found = 0
    for _ in range(600):
        # each seed moves both runs; their difference has a standard deviation of .005
        shared, own = generator.normal(0.1, 0.02, num_seeds), generator.normal(size=(2, num_seeds))
        one, other = shared + 0.005 / math.sqrt(2) * own
        test = over_seeds(dict(enumerate(one + 0.004)), dict(enumerate(other)), 0.95)
        found += test.p < 0.05
    assert 0.8 - 0.05 <= found / 600 <= 0.85 + 0.05, found  # three standard errors of .016


def test_the_spread_of_a_difference_is_paired_by_seed():
    # differences .01 .02 .03
    paired = spread_over_seeds({0: 0.11, 1: 0.22, 2: 0.33}, {2: 0.3, 1: 0.2, 0: 0.1})
    assert paired == pytest.approx(0.01)
    # variances 1 and 4
    unpaired = spread_over_seeds({0: 2, 1: 3, 2: 4}, {5: -2, 6: 0, 7: 2})
    assert unpaired == pytest.approx(math.sqrt(5))
    assert spread_over_seeds({0: 1, 1: 2}, {0: 1}) is None
