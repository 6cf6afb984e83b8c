"""The statistics by hand and by simulation: they keep their promises where the truth is known."""

import math

import numpy as np
import pytest

from twotower.report.statistics import bootstrap, holm, over_seeds, sign_flip


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1 is .03 .04 .04; never falling, never above 1
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]) == []


def test_over_seeds_pairs_by_seed():
    # differences .01 .02 .03: mean .02, sd .01, error .01/√3 = .005774, t = 3.4641 with 2 degrees, half width 4.3027 * .005774
    found = over_seeds({0: 0.11, 1: 0.22, 2: 0.33, 9: 5.0}, {0: 0.1, 1: 0.2, 2: 0.3, 7: -5.0}, 0.95)
    assert (found.low, found.high) == pytest.approx((0.02 - 0.024842, 0.02 + 0.024842), abs=1e-5)
    assert found.p == pytest.approx(
        1 - 3.4641 / math.sqrt(14), abs=1e-4
    )  # within ±t with 2 degrees: t / √(2 + t²)


def test_over_seeds_without_common_seeds_is_welch():
    # means 3 and 0; variances 1 and 4 over 3 each: error √(5/3); Welch's degrees (5/3)² / ((1/3)²/2 + (4/3)²/2) = 2.94, so 2
    found = over_seeds({0: 2, 1: 3, 2: 4}, {5: -2, 6: 0, 7: 2}, 0.95)
    half = 4.30265 * math.sqrt(5 / 3)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_one_seed_says_nothing_over_seeds():
    assert over_seeds({0: 1.0}, {0: 0.5}, 0.95) is None
    assert over_seeds({0: 1.0, 1: 2.0}, {0: 0.5}, 0.95) is None


def test_equal_runs_are_no_evidence():
    found = over_seeds({0: 0.1, 1: 0.2}, {0: 0.1, 1: 0.2}, 0.95)
    assert (found.low, found.high, found.p) == (0, 0, 1)


def test_sign_flip_by_hand():
    # |±1 ±1 ±1 ±1| reaches 4 in 2 of 16 flips: p = .125
    p = sign_flip(np.ones((4, 1)), 20_000, np.random.default_rng(0))
    assert p[0] == pytest.approx(0.125, abs=0.01)
    assert (
        sign_flip(np.ones((200, 1)), 100, np.random.default_rng(0))[0] == 1 / 101
    )  # the observed signs are one of the flips
    assert sign_flip(np.zeros((5, 2)), 100, np.random.default_rng(0)).tolist() == [1, 1]


def test_bootstrap_knows_the_binomial():
    # 100 users, 30 of them gain 1: the mean of a draw is binomial(100, .3) / 100, whose 2.5 % and 97.5 % points are .21 and .39
    differences = np.zeros((100, 1))
    differences[:30] = 1
    low, high = bootstrap(differences, 20_000, 0.95, np.random.default_rng(0))
    assert low[0] == pytest.approx(0.21, abs=0.011) and high[0] == pytest.approx(0.39, abs=0.011)
    assert bootstrap(np.zeros((5, 1)), 100, 0.95, np.random.default_rng(0)).tolist() == [[0], [0]]


def gains_of_equal_models(generator, num_users=300):
    """Differences of two models' NDCG as they are: mostly zero, skewed for each model, alike for both."""
    hits = generator.random((2, num_users)) < 0.2
    gain = 1 / np.log2(1 + generator.integers(1, 11, (2, num_users)))
    return (hits * gain)[0] - (hits * gain)[1]


def test_equal_models_are_found_different_at_the_nominal_rate_and_intervals_cover():
    generator = np.random.default_rng(5)
    runs = 400
    differences = np.stack([gains_of_equal_models(generator) for _ in range(runs)])
    rejected = covered = 0
    for difference in differences:
        rejected += sign_flip(difference[:, None], 500, generator)[0] < 0.05
        low, high = bootstrap(difference[:, None], 500, 0.95, generator)[:, 0]
        covered += low <= 0 <= high
    # 400 trials at 5 %: 20 ± 4.4; three standard deviations either side
    assert 7 <= rejected <= 33, rejected
    assert 367 <= covered <= 393, covered


def test_a_planted_difference_is_found_and_covered():
    generator = np.random.default_rng(6)
    found = covered = 0
    for _ in range(40):
        difference = gains_of_equal_models(generator) + 0.08 * (
            generator.random(300) < 0.75
        )  # planted: .06 in the mean
        found += sign_flip(difference[:, None], 500, generator)[0] < 0.05
        low, high = bootstrap(difference[:, None], 500, 0.95, generator)[:, 0]
        covered += low <= 0.06 <= high
    assert found >= 36 and covered >= 34, (found, covered)


def test_equal_trainings_over_seeds_are_found_different_at_the_nominal_rate():
    generator = np.random.default_rng(7)
    values = generator.normal(0.1, 0.005, (1000, 2, 3))
    evidence = [
        over_seeds(dict(enumerate(one)), dict(enumerate(other)), 0.95) for one, other in values
    ]
    rejected = sum(found.p < 0.05 for found in evidence)
    assert 29 <= rejected <= 71, rejected  # 50 ± 3 * 6.9
    assert all(
        (found.p < 0.05) == (found.low * found.high > 0) for found in evidence
    )  # interval and test agree
