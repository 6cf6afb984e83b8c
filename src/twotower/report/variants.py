"""Variants: runs that differ only by their seed, with a label made of what sets them apart."""

import re
from typing import NamedTuple

import numpy as np

from twotower.errors import UserError
from twotower.metrics.base import RankMetric
from twotower.report.ranks import Ranks, per_user
from twotower.report.runs import LeftOut, Run
from twotower.run.run_folder import RunFolder
from twotower.run.settings import Value, key_of, makes_variant


class Variant(NamedTuple):
    """One setting, several seeds.

    Attributes:
        label: short, different for each variant of a data set.
        runs: in order of their seeds; of several variants taken together, several of each seed.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Value]:
        """Settings that all its runs share."""
        return self.runs[0].record.settings

    @property
    def seeds(self) -> list[int]:
        """Ascending."""
        return sorted({run.record.seed for run in self.runs})

    @property
    def budget(self) -> int | None:
        """Trials of the search that chose its settings; None: there was none."""
        return self.runs[0].record.budget

    @property
    def has_ranks(self) -> bool:
        """Whether all its runs have ranks."""
        return all(isinstance(run.ranks, Ranks) for run in self.runs)

    def values(self, metric: str) -> dict[int, float]:
        """Test values by seed, the mean where a seed has several runs."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            found.setdefault(run.record.seed, []).append(run.record.test[metric])
        return {seed: float(np.mean(values)) for seed, values in found.items()}

    def mean(self, metric: str) -> float:
        """Mean test value over its runs."""
        return float(np.mean(list(self.values(metric).values())))

    def spread(self, metric: str) -> float | None:
        """Sample standard deviation over its runs; None for one run."""
        values = list(self.values(metric).values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def per_user(self, metric: RankMetric, mask: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Metric of each test user, averaged over the runs, all of which must have ranks.

        Args:
            metric: with one cut-off.
            mask: ``(num_targets,)``, which targets count; all by default.

        Returns:
            ``(num_users,)``, the users with such targets.
        """
        ranks = [run.ranks.of(mask) for run in self.runs if isinstance(run.ranks, Ranks)]
        values: np.ndarray = np.mean([per_user(own, metric) for own in ranks], 0)
        return values


def on_common_seeds(variants: list[Variant]) -> tuple[list[Variant], str]:
    """Variants with the runs of those seeds that all have; with fewer than two, all their runs.

    Returns:
        The variants, and a note where not all have the same seeds.
    """
    seeds = [set(variant.seeds) for variant in variants]
    common = set.intersection(*seeds)
    if all(own == common for own in seeds):
        return variants, ""
    if len(common) < 2:
        return variants, "different seeds"
    shared = [
        variant._replace(runs=tuple(run for run in variant.runs if run.record.seed in common))
        for variant in variants
    ]
    return shared, f"over the {len(common)} common seeds"


def by_data(runs: list[Run]) -> list[list[Run]]:
    """Group runs that were tested alike: the same split, masking and targets hidden by it."""
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        record = run.record
        hidden = record.test.get("hidden_targets", 0.0)
        key = (record.split_fingerprint, record.settings.get("data.mask_seen"), hidden)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def variants(runs: list[Run]) -> tuple[list[Variant], list[LeftOut]]:
    """The variants of one data set, and the runs that repeat a seed: the newest counts."""
    groups: dict[frozenset[tuple[str, Value]], dict[int, Run]] = {}
    repeated = []
    written = {run.name: RunFolder(run.folder).record.stat().st_mtime for run in runs}
    for run in sorted(runs, key=lambda run: -written[run.name]):
        seeds = groups.setdefault(frozenset(run.record.settings.items()), {})
        newer = seeds.setdefault(run.record.seed, run)
        if newer is not run:
            repeated.append(LeftOut(run.name, f"repeats {newer.name}: the same settings and seed"))
    found = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in groups.values()]
    return list(map(Variant, _labels(found), found)), repeated


def choose_baseline(variants: list[Variant], label: str | None) -> Variant:
    """The variant that is called ``label``; for None the plainest.

    Raises:
        UserError: if no variant, or more than one, is called so.
    """
    if label is None:
        return min(variants, key=complexity)
    label = greek(label)
    exact = [variant for variant in variants if variant.label == label]
    matching = exact or [variant for variant in variants if label in variant.label]
    if len(matching) != 1:
        number = "more than one" if matching else "no"
        listed = "; ".join(sorted(variant.label for variant in variants))
        raise UserError(f"baseline={label} names {number} variant; there are: {listed}")
    return matching[0]


def complexity(variant: Variant) -> tuple[bool, bool, int, str]:
    """First a two-tower model with all λ zero, then any with all λ zero, then a short label."""
    lambdas = [value for key, value in variant.settings.items() if key.startswith("loss.lambda")]
    is_plain = variant.runs[0].record.model == "two_tower" and not any(lambdas)
    all_zero = bool(lambdas) and not any(lambdas)
    return not is_plain, not all_zero, len(variant.label), variant.label


def _labels(groups: list[tuple[Run, ...]]) -> list[str]:
    """A label for each group of runs: the model and the overrides that not all groups share."""
    overrides = [min((_overrides(run) for run in group), key=len) for group in groups]
    shared = set.intersection(*(set(own.items()) for own in overrides)) if len(groups) > 1 else ()
    own = [dict(pair for pair in pairs.items() if pair not in shared) for pairs in overrides]
    short = _short_names({key for pairs in own for key in pairs})
    labels = []
    for group, pairs in zip(groups, own, strict=True):
        name = pairs.pop("model", group[0].record.model)
        name = pairs.pop("experiment", name)
        name = pairs.pop("variant", name)
        labels.append(" ".join([name, *(f"{short[key]}={value}" for key, value in pairs.items())]))
    return with_settings(labels, [group[0].record.settings for group in groups])


def _overrides(run: Run) -> dict[str, str]:
    """Overrides that make another experiment, by name.

    Of a run with searched settings only the chosen options: its numbers are those of its variant.
    """
    split = [override.lstrip("+~").partition("=") for override in run.record.overrides]
    found = {key: value for key, _, value in split if key != "data" and makes_variant(key_of(key))}
    if run.record.budget is None:
        return found
    return {key: value for key, value in found.items() if "." not in key}


def _short_names(keys: set[str]) -> dict[str, str]:
    """The last part of each dotted name where no other ends like it."""
    last = {key: greek(re.split(r"[./]", key)[-1]) for key in keys}
    ends = list(last.values())
    return {key: end if ends.count(end) == 1 else key for key, end in last.items()}


def greek(name: str) -> str:
    """``λ3`` for ``lambda3``."""
    return re.sub(r"\blambda(?=\d)", "λ", name)


def with_settings(labels: list[str], settings: list[dict[str, Value]]) -> list[str]:
    """Add to labels that are equal the settings that differ."""
    result = list(labels)
    for label in {label for label in labels if labels.count(label) > 1}:
        places = [place for place, other in enumerate(labels) if other == label]
        for key in sorted({key for place in places for key in settings[place]}):
            values = [settings[place].get(key, "unset") for place in places]
            if len(set(values)) > 1:
                for place, value in zip(places, values, strict=True):
                    result[place] += f" {key}={value}"
    return result
