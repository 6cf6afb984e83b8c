"""One data set of a report: its variants, what they reach, and how sure their differences are."""

import math
import zlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from twotower.metrics.base import RankMetric
from twotower.ranks import ROUNDING
from twotower.report.ranks import Ranks, per_user, read_ranks
from twotower.report.runs import LeftOut, Run
from twotower.report.statistics import Evidence, bootstrap, holm, over_seeds, sign_flip
from twotower.report.variants import Variant, choose_baseline, split_fingerprint, variants


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
    """A variant's metric minus the baseline's.

    Attributes:
        value: of the means over seeds.
        users: over users: these trained models, other test users. None without ranks of all runs of both.
        seeds: over seeds: these test users, other trainings. None with fewer than two seeds on a side.
    """

    value: float
    users: Evidence | None
    seeds: Evidence | None

    def is_clear(self, level: float) -> bool:
        """Do both say so, after correction, and to the same side? One alone leaves the other source of chance open."""
        both = [self.users, self.seeds]
        return all(found is not None and found.adjusted < 1 - level and found.low * found.high > 0 for found in both)


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
        users: of each variant with all its ranks: ``(num_users,)`` of the metric, averaged over seeds.
        ranks: of each such variant, one for each seed.
    """

    name: str
    fingerprint: str
    note: str
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    users: dict[str, np.ndarray]
    ranks: dict[str, list[Ranks]]

    @property
    def baseline(self) -> Variant:
        """The first row's."""
        return self.rows[0].variant

    @property
    def num_users(self) -> int | None:
        """How many are tested; None where no run kept ranks."""
        return next((len(values) for values in self.users.values()), None)


def make_section(runs: list[Run], wanted: Wanted) -> Section:
    """Compare the runs of one data set.

    Raises:
        UserError: if ``wanted.baseline`` names no variant of these.
    """
    found, repeated = variants(runs)
    baseline = choose_baseline(found, wanted.baseline)
    ranks, unusable = _ranks(found, wanted)
    users = {label: np.mean([per_user(own, wanted.metrics[wanted.metric]) for own in ranks[label]], 0) for label in ranks}
    rest = sorted((variant for variant in found if variant is not baseline), key=lambda variant: -_mean(variant, wanted.metric))
    differences = _differences(rest, baseline, users, wanted)
    rows = [Row(variant, _values(variant, wanted), differences.get(variant.label)) for variant in (baseline, *rest)]
    record = found[0].runs[0].record
    note = record.get("data_note") or ""
    return Section(
        record["data"], split_fingerprint(found[0].runs[0]), note, tuple(rows), (*repeated, *unusable), users, ranks
    )  # fmt: skip


def metric_by_seed(variant: Variant, metric: str) -> dict[int, float]:
    """Test values of the variant's runs."""
    return {run.record["seed"]: run.record["test"][metric] for run in variant.runs}


def _mean(variant: Variant, metric: str) -> float:
    return float(np.mean(list(metric_by_seed(variant, metric).values())))


def _values(variant: Variant, wanted: Wanted) -> dict[str, tuple[float, float | None]]:
    values = {}
    for metric in (wanted.metric, *wanted.columns):
        found = list(metric_by_seed(variant, metric).values())
        values[metric] = (float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else None)
    return values


def _ranks(found: list[Variant], wanted: Wanted) -> tuple[dict[str, list[Ranks]], list[LeftOut]]:
    """Ranks of the variants all of whose runs have sound ones of the same targets, and which runs have not."""
    read = {run.folder: read_ranks(run.folder) for variant in found for run in variant.runs}
    targets = Counter(ranks.targets() for ranks in read.values() if isinstance(ranks, Ranks))
    usual = targets.most_common(1)[0][0] if targets else ""
    ranks: dict[str, list[Ranks]] = {}
    unusable = []
    for variant in found:
        sound = [_sound(read[run.folder], run, usual, wanted) for run in variant.runs]
        reasons = [(run.name, why) for run, why in zip(variant.runs, sound, strict=True) if isinstance(why, str)]
        unusable += [LeftOut(name, f"left out of the tests over users alone: {why}") for name, why in reasons]
        if not reasons:
            ranks[variant.label] = [own for own in sound if isinstance(own, Ranks)]
    return ranks, unusable


def _sound(ranks: Ranks | str, run: Run, usual: str, wanted: Wanted) -> Ranks | str:
    """Ranks that give the run's own metrics, of the targets that most runs have, or what is wrong."""
    if isinstance(ranks, str):
        return ranks
    if ranks.targets() != usual:
        return "its ranks are of other users or items than most runs'"
    for name, metric in wanted.metrics.items():
        if not math.isclose(per_user(ranks, metric).mean(), run.record["test"][name], abs_tol=ROUNDING):
            return f"its ranks give another {name} than its metrics.json"
    return ranks


def _differences(others: list[Variant], baseline: Variant, users: dict[str, np.ndarray], wanted: Wanted) -> dict[str, Difference]:
    by_users = _over_users(others, baseline, users, wanted)
    seeds = {}
    for variant in others:
        own, start = (metric_by_seed(one, wanted.metric) for one in (variant, baseline))
        seeds[variant.label] = over_seeds(own, start, wanted.level)
    by_users, by_seeds = _corrected(by_users), _corrected(seeds)
    of_baseline = _mean(baseline, wanted.metric)
    return {
        variant.label: Difference(
            _mean(variant, wanted.metric) - of_baseline, by_users.get(variant.label), by_seeds.get(variant.label)
        )
        for variant in others
    }  # fmt: skip


def _over_users(
    others: list[Variant], baseline: Variant, users: dict[str, np.ndarray], wanted: Wanted
) -> dict[str, Evidence | None]:
    labels = [variant.label for variant in others if variant.label in users]
    if baseline.label not in users or not labels:
        return {}
    differences = np.stack([users[label] - users[baseline.label] for label in labels], 1)  # (num_users, num_comparisons)
    generator = np.random.default_rng([wanted.seed, zlib.crc32(wanted.metric.encode())])
    low, high = bootstrap(differences, wanted.resamples, wanted.level, generator)
    p = sign_flip(differences, wanted.resamples, generator)
    return {label: Evidence(*map(float, parts)) for label, *parts in zip(labels, low, high, p, p, strict=True)}


def _corrected(found: dict[str, Evidence | None]) -> dict[str, Evidence | None]:
    """With Holm's correction over those that there are."""
    known = {label: evidence for label, evidence in found.items() if evidence is not None}
    adjusted = holm([evidence.p for evidence in known.values()])
    return {label: evidence._replace(adjusted=value) for (label, evidence), value in zip(known.items(), adjusted, strict=True)}
