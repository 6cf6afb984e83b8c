"""Summaries, regressions and equivalence: by published examples, by hand and by simulation."""

import math

import numpy as np
import pytest

from twotower.report.estimate import combine, variances
from twotower.report.summary import (
    equivalence,
    interval,
    random_effects,
    regress,
    summarise,
    two_sided,
)

# Hedges' g of Borenstein et al., Introduction to Meta-Analysis (2009), table 14.1
VALUES = np.array([0.0945, 0.2774, 0.3665, 0.6644, 0.4618, 0.1852])
VARIANCES = np.array([0.0334, 0.0311, 0.0509, 0.0106, 0.0434, 0.0236])


def test_a_summary_as_statsmodels_computes_it():
    # combine_effects(method_re="iterated", use_t=True) of statsmodels 0.15
    found = summarise(VALUES, VARIANCES, 1, 0.95)
    assert found.value == pytest.approx(0.3663521, abs=1e-6)
    assert found.between**2 == pytest.approx(0.02252835, abs=1e-6)
    assert found.error == pytest.approx(0.09237985, abs=1e-6)  # Hartung and Knapp
    assert (found.low, found.high) == pytest.approx((0.128882, 0.603822), abs=1e-5)
    assert found.share == pytest.approx(0.5793541, abs=1e-6)
    # t with 4 degrees is 2.776445; √(.02252835 + .09237985²) = .1762426
    assert found.predicted[1] - found.value == pytest.approx(2.776445 * 0.1762426, abs=1e-5)


def test_an_imprecise_data_set_that_lies_apart_widens_the_interval():
    # the measurements of Kacker (2004), as in statsmodels' example: mean 62.4076, τ² .70539 and
    # Hartung and Knapp's error .33803; that of the plain mean is larger: 1.381392 / √9
    values = np.array([61.00, 61.40, 62.21, 62.30, 62.34, 62.60, 62.70, 62.84, 65.90])
    squares = np.array([0.2025, 1.21, 0.09, 0.2025, 0.3844, 0.5625, 0.0676, 0.0225, 1.8225])
    found = summarise(values, squares, 1, 0.95)
    assert found.value == pytest.approx(62.40762, abs=1e-4)
    assert found.between**2 == pytest.approx(0.7053938, abs=1e-5)
    assert found.error == pytest.approx(values.std(ddof=1) / 3) == pytest.approx(0.460464, abs=1e-5)
    assert found.share == pytest.approx(0.6774440, abs=1e-6)


def test_a_regression_as_statsmodels_computes_it():
    # WLS with weights 1 / (v + τ²), τ² = .02842920 for which its scale is 1
    variable = np.array([1.1, 1.4, 1.7, 2.0, 2.3, 2.6])
    fit = random_effects(VALUES, VARIANCES, np.stack([np.ones(6), variable], 1))
    assert fit.between == pytest.approx(0.0284292, abs=1e-6)
    assert fit.coefficients == pytest.approx([0.14514191, 0.11570788], abs=1e-6)
    assert fit.errors == pytest.approx([0.3750862, 0.1927828], abs=1e-6)
    line = regress(variable, VALUES, VARIANCES, 0.95)
    assert (line.slope, line.error) == pytest.approx((0.11570788, 0.1927828), abs=1e-6)
    # 2.776445 * .1927828 = .535251
    assert (line.low, line.high) == pytest.approx((-0.419543, 0.650959), abs=1e-5)
    assert line.band[0, [0, -1]] == pytest.approx([0.2724206, 0.4459824], abs=1e-6)  # a + b x


def test_equal_precision_is_the_t_test_of_one_sample():
    # 1 2 6: mean 3, sd √7, error √(7/3) = 1.5275; t with 2 degrees is 4.302653
    found = summarise(np.array([1.0, 2.0, 6.0]), np.full(3, 0.1), 1, 0.95)
    assert (found.value, found.error) == pytest.approx((3, math.sqrt(7 / 3)))
    assert found.high == pytest.approx(3 + 4.302653 * math.sqrt(7 / 3), abs=1e-5)
    assert found.between**2 == pytest.approx(7 - 0.1)  # what chance leaves over
    assert found.share == pytest.approx(1 - 0.1 / 7)


def test_two_data_sets_have_one_degree_of_freedom_and_no_prediction():
    found = summarise(np.array([1.0, 2.0]), np.full(2, 0.1), 7, 0.95)
    assert found.high == pytest.approx(1.5 + 12.7062 * 0.5, abs=1e-3) and found.predicted is None


def test_two_data_sets_that_agree_by_chance_are_not_sure():
    found = summarise(np.full(2, 0.5), np.full(2, 0.02), 7, 0.95)
    assert found.error == pytest.approx(0.1)  # √(.02 / 2), not zero
    assert found.low == pytest.approx(0.5 - 12.7062 * 0.1, abs=1e-4)


def test_one_data_set_is_its_own_summary():
    found = summarise(np.array([0.02]), np.array([0.01**2]), 2, 0.95)
    assert (found.low, found.high) == pytest.approx((0.02 - 0.0430265, 0.02 + 0.0430265), abs=1e-6)
    assert found.between is found.share is found.predicted is None


def test_values_without_spread():
    found = summarise(np.full(3, 0.02), np.zeros(3), 2, 0.95)
    # the mean of three equal numbers may be off by its last digit
    assert found[0] == pytest.approx(0.02, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((0.02, 0.02), rel=1e-8)
    assert found.p == pytest.approx(0, abs=1e-12)
    assert summarise(np.zeros(3), np.zeros(3), 2, 0.95).p == 1
    assert equivalence(0.005, 0, 2, 0.01) == 0 and equivalence(0.01, 0, 2, 0.01) == 1


def test_equivalence_as_statsmodels_computes_it():
    # DescrStatsW([.004, -.002, .003, .001, .006]).ttost_mean(-.01, .01): p .0025408
    values = np.array([0.004, -0.002, 0.003, 0.001, 0.006])
    error = values.std(ddof=1) / math.sqrt(5)
    assert equivalence(values.mean(), error, 4, 0.01) == pytest.approx(0.00254079, abs=1e-7)
    assert equivalence(-values.mean(), error, 4, 0.01) == pytest.approx(0.00254079, abs=1e-7)


def test_equivalence_is_the_interval_of_twice_the_rate_within_the_margin():
    low, high = interval(0.004, 0.003, 4, 0.9)
    assert low > -0.01 and high > 0.01 and equivalence(0.004, 0.003, 4, 0.01) > 0.05
    assert interval(0.004, 0.0028, 4, 0.9)[1] < 0.01
    assert equivalence(0.004, 0.0028, 4, 0.01) < 0.05


class World:
    """Relative differences of data sets: by data set, seed, user, and both of these together."""

    def __init__(self, seeds, users, between, seed=0.01, user=0.1, cell=0.2):
        self.seeds, self.users = seeds, users
        self.spreads = (between, seed, user, cell)

    def draw(self, generator, truth):
        estimates = []
        for num_seeds, num_users in zip(self.seeds, self.users, strict=True):
            between, seed, user, cell = self.spreads
            table = truth + between * generator.normal()
            table = table + seed * generator.normal(size=(num_seeds, 1))
            table = table + user * generator.normal(size=num_users)
            table = table + cell * generator.normal(size=table.shape)
            means = table.mean(1)
            estimates.append(combine(float(means.mean()), 0.0, [means], [table]))
        return estimates


def rates(world, num, margin):
    """Shares of worlds at the margin: intervals that hold the truth, and false equivalence."""
    generator = np.random.default_rng(11)
    covered = equivalent = 0
    for _ in range(num):
        estimates = world.draw(generator, margin)
        values = np.array([own.value for own in estimates])
        found = summarise(values, variances(estimates), estimates[0].freedom, 0.95)
        covered += found.low <= margin <= found.high
        equivalent += equivalence(found.value, found.error, found.freedom, margin) < 0.05
    return covered / num, equivalent / num


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("num_data", [3, 4])
@pytest.mark.parametrize("between", [0, 0.02])
def test_a_summary_covers_and_false_equivalence_stays_at_the_level(num_seeds, num_data, between):
    world = World([num_seeds] * num_data, [150] * num_data, between)
    covered, equivalent = rates(world, 500, 0.2)
    # 500 trials at 95 % and 5 %: a standard deviation of .01; three either side
    assert 0.92 <= covered <= 0.98, covered
    assert 0.02 <= equivalent <= 0.08, equivalent


@pytest.mark.parametrize("between", [0, 0.01])
def test_data_sets_of_unequal_size_and_seeds_do_not_narrow_the_summary(between):
    covered, equivalent = rates(World([3, 3, 5], [30, 100, 900], between), 500, 0.2)
    assert covered >= 0.92, covered
    assert equivalent <= 0.08, equivalent


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(
    ("seed", "user", "cell"), [(0.05, 0, 0), (0, 0.3, 0), (0.01, 0.1, 0.1), (0.01, 0, 0.2)]
)
def test_one_data_set_covers_and_false_equivalence_stays_at_the_level(num_seeds, seed, user, cell):
    """Chance over seeds alone, users alone, all, and where both contain the same chance."""
    covered, equivalent = rates(World([num_seeds], [100], 0, seed, user, cell), 800, 0.2)
    # 800 trials: three standard deviations are .023; where the seeds add little it is cautious
    assert 0.927 <= covered <= 0.995, covered
    assert equivalent <= 0.073, equivalent


def test_a_slope_of_nothing_is_found_at_the_nominal_rate():
    generator = np.random.default_rng(12)
    variable = np.array([0.7, 1.0, 1.3, 2.0])
    design = np.stack([np.ones(4), variable], 1)
    found = covered = 0
    for _ in range(300):
        noise = generator.normal(0, 0.02, 4)
        fit = random_effects(noise, np.full(4, 0.01**2), design)
        found += two_sided(fit.coefficients[1], fit.errors[1], fit.freedom) < 0.05
        fit = random_effects(0.1 * variable + noise, np.full(4, 0.02**2), design)
        low, high = interval(fit.coefficients[1], fit.errors[1], fit.freedom, 0.95)
        covered += low <= 0.1 <= high
    assert 4 <= found <= 26, found  # 15 ± 3 * 3.8
    assert 274 <= covered <= 296, covered


def test_different_seeds_on_both_sides_cover():
    generator = np.random.default_rng(13)
    covered = 0
    for _ in range(600):
        user, sides = generator.normal(0, 0.1, 100), []
        for num_seeds in (3, 5):
            noise = 0.02 * generator.normal(size=(num_seeds, 1))
            sides.append(noise + 0.1 * generator.normal(size=(num_seeds, 100)))
        sides[0] += user  # what users gain by the variant
        means = [side.mean(1) for side in sides]
        value = float(means[0].mean() + means[1].mean())  # the second side is negative already
        own = combine(value, 0.0, means, sides)
        low, high = interval(own.value, own.error, own.freedom, 0.95)
        covered += low <= 0 <= high
    assert 0.923 <= covered / 600 <= 0.985, covered


def test_two_sided_p():
    assert two_sided(0, 0, 2) == 1 and two_sided(1, 0, 2) == 0
    # t = 2 with 2 degrees: 1 - 2 / √(2 + 4)
    assert two_sided(-2, 1, 2) == pytest.approx(1 - 2 / math.sqrt(6))
