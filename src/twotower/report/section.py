"""One data set of a report: its variants, what they reach, and how sure their differences are."""

import math
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from twotower.metrics.base import RankMetric
from twotower.report.compared import Compared, compared
from twotower.report.ranks import Ranks, per_user, read_ranks
from twotower.report.runs import LeftOut, Run
from twotower.report.statistics import Evidence, bootstrap, holm, over_seeds, sign_flip
from twotower.report.variants import Variant, choose_baseline, split_fingerprint, variants
from twotower.run.ranks import ROUNDING


class Wanted(NamedTuple):
    """What the report is asked for.

    Attributes:
        metric: the one that is compared.
        columns: others that are shown.
        baseline: label of the variant to compare with; None: the plainest.
        level: of intervals.
        resamples: of bootstrap and permutation test.
        seed: of both.
        metrics: by name, ``metric`` and ``columns``, each with one cut-off.
    """

    metric: str
    columns: tuple[str, ...]
    baseline: str | None
    level: float
    resamples: int
    seed: int
    metrics: dict[str, RankMetric]


class Difference(NamedTuple):
    """A variant's metric minus the baseline's, all of it of the same runs.

    Attributes:
        value: of the means over the runs compared.
        start: the baseline's mean over the runs compared.
        overall: of the means over all runs of both; another number where they have different seeds.
        users: over users: these trained models, other test users. None without ranks of all the runs compared.
        seeds: over seeds: these test users, other trainings. None with fewer than two seeds on a side.
        compared: which runs.
    """

    value: float
    start: float
    overall: float
    users: Evidence | None
    seeds: Evidence | None
    compared: Compared

    def is_clear(self, level: float) -> bool:
        """Do both say so, after correction, and to the same side as all runs together?

        One alone leaves the other source of chance open.
        """
        if self.users is None or self.seeds is None:
            return False
        both = (self.users, self.seeds)
        ends = [
            self.overall,
            self.value,
            *(end for found in both for end in (found.low, found.high)),
        ]
        one_side = all(end > 0 for end in ends) or all(end < 0 for end in ends)
        return one_side and all(found.adjusted < 1 - level for found in both)


class Row(NamedTuple):
    """A variant in the table.

    Attributes:
        variant: whose row it is.
        values: ``(mean, sample standard deviation)`` over seeds by metric; the second is None for one seed.
        difference: None for the baseline.
    """

    variant: Variant
    values: dict[str, tuple[float, float | None]]
    difference: Difference | None


class Section(NamedTuple):
    """One data set.

    Attributes:
        name: of the data, as ``data=`` has it.
        fingerprint: of the interactions and their split.
        note: what the data say of themselves.
        rows: the baseline first, then from the best on.
        left_out: runs of this data set that are not counted.
        users: of each variant, by seed of the runs with sound ranks: ``(num_users,)`` of the metric.
        ranks: of each variant, by seed of these runs.
    """

    name: str
    fingerprint: str
    note: str
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    users: dict[str, dict[int, np.ndarray]]
    ranks: dict[str, dict[int, Ranks]]

    @property
    def baseline(self) -> Variant:
        """The first row's."""
        return self.rows[0].variant

    @property
    def num_users(self) -> int | None:
        """How many are tested; None where no run kept ranks."""
        return next(
            (len(values) for by_seed in self.users.values() for values in by_seed.values()), None
        )


def make_section(runs: list[Run], wanted: Wanted) -> Section:
    """Compare the runs of one data set.

    Raises:
        UserError: if ``wanted.baseline`` names no variant of these.
    """
    found, repeated = variants(runs)
    baseline = choose_baseline(found, wanted.baseline)
    ranks, unusable = _ranks(found, wanted)
    metric = wanted.metrics[wanted.metric]
    users = {
        label: {seed: per_user(own, metric) for seed, own in ranks[label].items()}
        for label in ranks
    }
    rest = sorted(
        (variant for variant in found if variant is not baseline),
        key=lambda variant: -_mean(variant, wanted.metric),
    )
    differences = _differences(rest, baseline, users, wanted)
    rows = [
        Row(variant, _values(variant, wanted), differences.get(variant.label))
        for variant in (baseline, *rest)
    ]
    record = found[0].runs[0].record
    note = record.get("data_note") or ""
    return Section(
        record["data"], split_fingerprint(found[0].runs[0]), note, tuple(rows), (*repeated, *unusable), users, ranks
    )  # fmt: skip


def metric_by_seed(variant: Variant, metric: str) -> dict[int, float]:
    """Test values of the variant's runs."""
    return {run.record["seed"]: run.record["test"][metric] for run in variant.runs}


def mean_over(variant: Variant, metric: str, seeds: Iterable[int]) -> float:
    """Mean test value of the variant's runs with these seeds."""
    by_seed = metric_by_seed(variant, metric)
    return float(np.mean([by_seed[seed] for seed in seeds]))


def _mean(variant: Variant, metric: str) -> float:
    return mean_over(variant, metric, variant.seeds)


def _values(variant: Variant, wanted: Wanted) -> dict[str, tuple[float, float | None]]:
    values = {}
    for metric in (wanted.metric, *wanted.columns):
        found = list(metric_by_seed(variant, metric).values())
        values[metric] = (
            float(np.mean(found)),
            float(np.std(found, ddof=1)) if len(found) > 1 else None,
        )
    return values


def _ranks(
    found: list[Variant], wanted: Wanted
) -> tuple[dict[str, dict[int, Ranks]], list[LeftOut]]:
    """Sound ranks of the same targets by variant and seed, and which runs have none."""
    read = {run.folder: read_ranks(run.folder) for variant in found for run in variant.runs}
    targets = Counter(ranks.targets() for ranks in read.values() if isinstance(ranks, Ranks))
    usual = targets.most_common(1)[0][0] if targets else ""
    ranks: dict[str, dict[int, Ranks]] = {}
    unusable = []
    for variant in found:
        ranks[variant.label] = {}
        for run in variant.runs:
            sound = _sound(read[run.folder], run, usual, wanted)
            if isinstance(sound, Ranks):
                ranks[variant.label][run.record["seed"]] = sound
            else:
                why = f"left out of the tests over users alone: {sound}"
                unusable.append(LeftOut(run.name, why))
    return ranks, unusable


def _sound(ranks: Ranks | str, run: Run, usual: str, wanted: Wanted) -> Ranks | str:
    """Ranks that give the run's own metrics, of the targets that most runs have, or what is wrong."""
    if isinstance(ranks, str):
        return ranks
    if ranks.targets() != usual:
        return "its ranks are of other users or items than most runs'"
    for name, metric in wanted.metrics.items():
        if not math.isclose(
            per_user(ranks, metric).mean(), run.record["test"][name], abs_tol=ROUNDING
        ):
            return f"its ranks give another {name} than its metrics.json"
    return ranks


def _differences(
    others: list[Variant],
    baseline: Variant,
    users: dict[str, dict[int, np.ndarray]],
    wanted: Wanted,
) -> dict[str, Difference]:
    metric = wanted.metric
    runs = {variant.label: compared(variant.seeds, baseline.seeds) for variant in others}
    by_seed = {variant.label: metric_by_seed(variant, metric) for variant in (*others, baseline)}
    seeds = {}
    for label, used in runs.items():
        own = {seed: by_seed[label][seed] for seed in used.variant}
        start = {seed: by_seed[baseline.label][seed] for seed in used.baseline}
        seeds[label] = over_seeds(own, start, wanted.level)
    by_seeds = _corrected(seeds)
    by_users = _corrected(_over_users(runs, baseline, users, wanted))
    differences = {}
    for variant in others:
        label, used = variant.label, runs[variant.label]
        base = mean_over(baseline, metric, used.baseline)
        value = mean_over(variant, metric, used.variant) - base
        overall = _mean(variant, metric) - _mean(baseline, metric)
        evidence = (by_users.get(label), by_seeds.get(label))
        differences[label] = Difference(value, base, overall, *evidence, used)
    return differences


def _over_users(
    runs: dict[str, Compared],
    baseline: Variant,
    users: dict[str, dict[int, np.ndarray]],
    wanted: Wanted,
) -> dict[str, Evidence | None]:
    """Of each comparison whose runs all have ranks; users are averaged over the runs compared."""
    differences = {}
    for label, used in runs.items():
        own, start = users[label], users[baseline.label]
        if set(used.variant) <= own.keys() and set(used.baseline) <= start.keys():
            difference = np.mean([own[seed] for seed in used.variant], 0)
            difference = difference - np.mean([start[seed] for seed in used.baseline], 0)
            differences[label] = difference  # (num_users,)
    if not differences:
        return {}
    stacked = np.stack(list(differences.values()), 1)  # (num_users, num_comparisons)
    generator = np.random.default_rng([wanted.seed, zlib.crc32(wanted.metric.encode())])
    low, high = bootstrap(stacked, wanted.resamples, wanted.level, generator)
    p = sign_flip(stacked, wanted.resamples, generator)
    columns = zip(differences, low, high, p, p, strict=True)
    return {label: Evidence(*map(float, parts)) for label, *parts in columns}


def _corrected(found: dict[str, Evidence | None]) -> dict[str, Evidence | None]:
    """With Holm's correction over those that there are."""
    known = {label: evidence for label, evidence in found.items() if evidence is not None}
    adjusted = holm([evidence.p for evidence in known.values()])
    return {
        label: evidence._replace(adjusted=value)
        for (label, evidence), value in zip(known.items(), adjusted, strict=True)
    }
