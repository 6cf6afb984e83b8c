"""Runs that differ by their seed alone are one variant; a variant is called by what sets it apart."""

import re
from itertools import chain, count
from typing import Any, NamedTuple

from twotower.errors import UserError
from twotower.report.runs import LeftOut, Run
from twotower.run.run_folder import RunFolder
from twotower.run.settings import key_of, makes_experiment
from twotower.wording import clip

NAMING = ("variant", "experiment")  # overrides whose value is a name by itself
UNSET = "unset"
LONGEST_LABEL = 300

Pairs = dict[str, str]


class Variant(NamedTuple):
    """One setting, several seeds.

    Attributes:
        label: short, and of no other variant of the report's data set.
        runs: in order of their seeds.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What all its runs share."""
        return self.runs[0].settings

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(run.record["seed"] for run in self.runs)


def by_data(runs: list[Run]) -> list[list[Run]]:
    """Runs that were trained and tested on the same interactions, with seen items masked or not; whatever features they had.

    A run of a version that spared seen targets from the mask hid none, so where others did it stands apart.
    """
    groups: dict[tuple[str, Any, float], list[Run]] = {}
    for run in runs:
        hidden = (run.record.get("test") or {}).get("hidden_targets", 0.0)
        key = (split_fingerprint(run), run.settings.get("data.mask_seen"), hidden)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def split_fingerprint(run: Run) -> str:
    """Of the interactions and their split; of a run from before these were told apart that of all its data."""
    return run.record.get("split_fingerprint", run.record["data_fingerprint"])


def variants(runs: list[Run]) -> tuple[list[Variant], list[LeftOut]]:
    """The variants of one data set, and runs that repeat a seed of theirs: the newest counts."""
    groups: dict[Any, dict[int, Run]] = {}
    repeated = []
    for run in sorted(
        runs, key=lambda run: RunFolder(run.folder).record.stat().st_mtime, reverse=True
    ):
        seeds = groups.setdefault(frozenset(run.settings.items()), {})
        if run.record["seed"] in seeds:
            repeated.append(
                LeftOut(
                    run.name,
                    f"repeats {seeds[run.record['seed']].name}: the same settings and seed",
                )
            )
        else:
            seeds[run.record["seed"]] = run
    found = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in groups.values()]
    labels = _labels(found)
    return [Variant(label, group) for label, group in zip(labels, found, strict=True)], repeated


def choose_baseline(found: list[Variant], wanted: str | None) -> Variant:
    """The variant that ``wanted`` names; else the plainest: a two-tower model, else all λ zero, else the shortest label.

    Raises:
        UserError: if no variant, or more than one, is called like ``wanted``.
    """
    if wanted is None:
        return min(
            found, key=lambda variant: (_complexity(variant), len(variant.label), variant.label)
        )
    wanted = _greek(wanted)
    exact = [variant for variant in found if variant.label == wanted]
    matching = exact or [variant for variant in found if wanted in variant.label]
    if len(matching) != 1:
        listed = "; ".join(sorted(variant.label for variant in found))
        raise UserError(
            f"baseline={wanted} names {'no' if not matching else 'more than one'} variant; there are: {listed}"
        )
    return matching[0]


def _complexity(variant: Variant) -> int:
    if variant.runs[0].record["model"] == "two_tower" and not any(_lambdas(variant.settings)):
        return 0
    return 1 if _lambdas(variant.settings) and not any(_lambdas(variant.settings)) else 2


def _lambdas(settings: dict[str, Any]) -> list[float]:
    return [value or 0 for key, value in settings.items() if key.startswith("loss.lambda")]


def _labels(groups: list[tuple[Run, ...]]) -> list[str]:
    """One for each group of runs, all different."""
    pairs = [min((_pairs(run.record["overrides"]) for run in group), key=len) for group in groups]
    shared = set.intersection(*(set(own.items()) for own in pairs)) if len(pairs) > 1 else set()
    differing = [
        {key: value for key, value in own.items() if (key, value) not in shared} for own in pairs
    ]
    short = _short_names({key for own in differing for key in own} - set(NAMING))
    labels = [
        _label(group[0].record["model"], own, short)
        for group, own in zip(groups, differing, strict=True)
    ]
    return _unique(_told_apart(labels, [group[0].settings for group in groups]))


def _pairs(overrides: list[str]) -> Pairs:
    """Overrides that make another experiment, by name."""
    split = [override.lstrip("+~").partition("=") for override in overrides]
    return {
        key: value for key, _, value in split if key != "data" and makes_experiment(key_of(key))
    }


def _label(model: str, own: Pairs, short: dict[str, str]) -> str:
    own = {key: value for key, value in own.items() if key != "model"}
    name = next((own.pop(key) for key in NAMING if key in own), model)
    return " ".join(
        [name, *(f"{short[key]}={value}" for key, value in own.items() if key in short)]
    )


def _short_names(keys: set[str]) -> dict[str, str]:
    """The last part of each dotted name where no other ends like it."""
    last = {key: _greek(re.split(r"[./]", key)[-1]) for key in keys}
    ends = list(last.values())
    return {key: end if ends.count(end) == 1 else key for key, end in last.items()}


def _greek(name: str) -> str:
    return re.sub(r"\blambda(?=\d)", "λ", name)


def _told_apart(labels: list[str], settings: list[dict[str, Any]]) -> list[str]:
    """Labels that several share get the settings in which those differ."""
    result = list(labels)
    for label in {label for label in labels if labels.count(label) > 1}:
        places = [place for place, other in enumerate(labels) if other == label]
        keys = sorted({key for place in places for key in settings[place]})
        keys = [
            key for key in keys if len({settings[place].get(key, UNSET) for place in places}) > 1
        ]
        for place in places:
            result[place] += (
                f" ({', '.join(f'{key}={settings[place].get(key, UNSET)}' for key in keys)})"
            )
    return result


def _unique(labels: list[str]) -> list[str]:
    """Of bounded length and still all different, as figures are looked up by them."""
    found: list[str] = []
    for label in labels:
        label = clip(label, LONGEST_LABEL)
        names = chain([label], (f"{label} #{place}" for place in count(2)))
        found.append(next(name for name in names if name not in found))
    return found
