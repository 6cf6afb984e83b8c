"""One data set of a report: its variants, and how sure their differences are."""

from collections import Counter
from itertools import chain
from typing import NamedTuple

import numpy as np

from twotower.metrics.base import RankMetric
from twotower.report.quoted import Entry, Quoted, fitting
from twotower.report.ranks import Ranks
from twotower.report.runs import LeftOut, Run
from twotower.report.statistics import Evidence, holm, over_seeds, over_users
from twotower.report.variants import Variant, choose_baseline, on_common_seeds, variants


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
    """

    metric: str
    metrics: dict[str, RankMetric]
    baseline: str | None
    level: float
    resamples: int
    seed: int
    published: list[Entry]


class Comparison(NamedTuple):
    """A variant minus the baseline.

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


class Section(NamedTuple):
    """One data set.

    Attributes:
        name: of the data, the option of ``data=``.
        fingerprint: of the interactions and their split.
        note: of the data set.
        baseline: the variant that the others are compared with.
        comparisons: one for each other variant, the best first.
        quoted: published rows.
        left_out: runs of this data set that are not counted everywhere.
        num_users: number of test users; None if no run has ranks.
        options: of the report.
    """

    name: str
    fingerprint: str
    note: str
    baseline: Variant
    comparisons: list[Comparison]
    quoted: list[Quoted]
    left_out: list[LeftOut]
    num_users: int | None
    options: Options

    @property
    def variants(self) -> list[Variant]:
        """The baseline, then the others, the best first."""
        return [self.baseline, *(comparison.variant for comparison in self.comparisons)]


def make_section(runs: list[Run], options: Options) -> Section:
    """Compare the runs of one data set.

    Raises:
        UserError: if ``options.baseline`` names no variant of these.
    """
    found, left_out = variants(_on_same_targets(runs))
    baseline = choose_baseline(found, options.baseline)
    others = [variant for variant in found if variant is not baseline]
    others.sort(key=lambda variant: -variant.mean(options.metric))
    num_users = None
    for run in chain.from_iterable(variant.runs for variant in found):
        if isinstance(run.ranks, Ranks):
            num_users = len(np.unique(run.ranks.user))
        else:
            left_out.append(LeftOut(run.name, f"not in the tests over users: {run.ranks}"))
    record = runs[0].record
    return Section(
        name=record.data,
        fingerprint=record.split_fingerprint,
        note=record.data_note,
        baseline=baseline,
        comparisons=_compare(others, baseline, options),
        quoted=fitting(options.published, record.data, num_users, found),
        left_out=left_out,
        num_users=num_users,
        options=options,
    )


def _on_same_targets(runs: list[Run]) -> list[Run]:
    """The runs, without ranks where these are of other targets than most runs'."""
    targets = [run.ranks.targets() if isinstance(run.ranks, Ranks) else "" for run in runs]
    usual = Counter(filter(None, targets)).most_common(1)
    problem = "its ranks are of other users or items than most runs'"
    return [
        run._replace(ranks=problem) if own and own != usual[0][0] else run
        for run, own in zip(runs, targets, strict=True)
    ]


def _compare(others: list[Variant], baseline: Variant, options: Options) -> list[Comparison]:
    name = options.metric
    comparisons = []
    for variant in others:
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


class Report(NamedTuple):
    """What every format shows.

    Attributes:
        sections: one for each data set.
        left_out: runs that are not counted, or not everywhere.
    """

    sections: list[Section]
    left_out: list[LeftOut]
