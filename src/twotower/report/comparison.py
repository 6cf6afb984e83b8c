"""Differences of two variants with their tests."""

from typing import NamedTuple

from twotower.metrics.base import RankMetric
from twotower.report.quoted import Entry
from twotower.report.statistics import Evidence, holm, over_seeds, over_users
from twotower.report.variants import Variant, on_common_seeds


class Options(NamedTuple):
    """Settings of a report.

    Attributes:
        metric: its differences are tested.
        metrics: the columns of the table by name, ``metric`` first, each with one cut-off.
        baseline: label of the variant to compare with; None: the plainest.
        level: of intervals.
        resamples: of bootstrap and permutation test.
        seed: of both.
        published: figures of other projects.
        control: name of the variants that the others are compared with across data sets; None: each
            part is.
        margin: relative differences within it count as none.
    """

    metric: str
    metrics: dict[str, RankMetric]
    baseline: str | None
    level: float
    resamples: int
    seed: int
    published: list[Entry]
    control: str | None = None
    margin: float = 0.01


class Comparison(NamedTuple):
    """A variant minus another one, called the baseline here.

    Attributes:
        variant: with all its runs.
        one: the variant with the runs that are compared.
        other: the baseline with the runs that are compared.
        note: on the seeds, see :func:`twotower.report.variants.on_common_seeds`.
        value: difference of the means over the runs that are compared.
        overall: difference of the means over all runs.
        users: these trained models, other test users; None without ranks of all runs compared.
        seeds: these test users, other trainings; None with fewer than two seeds on a side.
    """

    variant: Variant
    one: Variant
    other: Variant
    note: str
    value: float
    overall: float
    users: Evidence | None
    seeds: Evidence | None

    def is_clear(self, level: float) -> bool:
        """Whether both tests find a difference, to the side that all runs together point to.

        One test alone leaves the other source of chance open.
        """
        if self.users is None or self.seeds is None:
            return False
        ends = [self.value, self.overall, *self.users[:2], *self.seeds[:2]]
        is_one_sided = min(ends) > 0 or max(ends) < 0
        return is_one_sided and max(self.users.adjusted, self.seeds.adjusted) < 1 - level


def compare(pairs: list[tuple[Variant, Variant]], options: Options) -> list[Comparison]:
    """Compare the first of each two variants with the second."""
    name = options.metric
    comparisons = []
    for variant, baseline in pairs:
        (one, other), note = on_common_seeds([variant, baseline])
        value = one.mean(name) - other.mean(name)
        overall = variant.mean(name) - baseline.mean(name)
        seeds = over_seeds(one.values(name), other.values(name), options.level)
        users = None
        if one.has_ranks and other.has_ranks:
            metric = options.metrics[name]
            difference = one.per_user(metric) - other.per_user(metric)  # (num_users,)
            users = over_users(difference, options.resamples, options.level, options.seed)
        comparisons.append(Comparison(variant, one, other, note, value, overall, users, seeds))
    by_users = holm([comparison.users for comparison in comparisons])
    by_seeds = holm([comparison.seeds for comparison in comparisons])
    return [
        comparison._replace(users=users, seeds=seeds)
        for comparison, users, seeds in zip(comparisons, by_users, by_seeds, strict=True)
    ]
