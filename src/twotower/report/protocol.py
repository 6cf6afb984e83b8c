"""What the runs of a data set have in common, and how to repeat them."""

import shlex
from collections.abc import Iterable
from typing import NamedTuple

from twotower.report.parts import shown
from twotower.report.runs import Run
from twotower.report.section import Section
from twotower.report.variants import Variant
from twotower.run.settings import key_of, names_variant
from twotower.wording import clip, typed


class Repeat(NamedTuple):
    """How to train the runs of a variant again.

    Attributes:
        label: of the variant.
        command: that trains all its seeds.
        folders: of its runs, by name.
    """

    label: str
    command: str
    folders: list[str]


def facts(section: Section) -> dict[str, str]:
    """The protocol by name; where variants differ, all values."""
    runs = _runs(section)
    settings = [run.record.settings for run in runs]

    def values(key: str) -> str:
        return _distinct(shown(own[key]) for own in settings if own.get(key) is not None)

    def node(name: str) -> str:
        return _distinct(filter(None, (_node(name, run) for run in runs)))

    found = {
        "data": f"{section.name}, fingerprint {section.fingerprint}",
        "split": node("data.split"),
        "k-core": values("data.k_core"),
        "interactions per user, at most": values("data.max_per_user"),
        "seen items hidden": values("data.mask_seen"),
        "history": values("data.history_length"),
        "epochs": _epochs(runs, values("trainer.max_epochs")),
        "epoch chosen by": values("callbacks.best.monitor"),
        "patience": values("callbacks.early_stopping.patience"),
        "batch": _batch(values("data.batch_size"), values("trainer.num_processes")),
        "negatives": node("negatives"),
        "optimizer": node("optimizer"),
        "seeds": _seeds(section.variants),
        "versions": _distinct(filter(None, map(_versions, runs))),
        "commit": _distinct(filter(None, (run.record.versions.get("commit") for run in runs))),
    }
    return {name: value for name, value in found.items() if value}


def repeats(section: Section) -> list[Repeat]:
    """Command and run folders of each variant."""
    return [
        Repeat(variant.label, _command(variant), [run.name for run in variant.runs])
        for variant in section.variants
    ]


def _runs(section: Section) -> list[Run]:
    return [run for variant in section.variants for run in variant.runs]


def _seeds(variants: list[Variant]) -> str:
    used = [variant.seeds for variant in variants]
    text = ", ".join(map(str, sorted({seed for seeds in used for seed in seeds})))
    return text if all(seeds == used[0] for seeds in used) else f"{text}, not each of all variants"


def _distinct(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(values))


def _node(name: str, run: Run) -> str:
    """``SharedUniform (num=1024, exclude_positives=false)``."""
    inner = {
        key.removeprefix(f"{name}."): value
        for key, value in run.record.settings.items()
        if key.startswith(f"{name}.")
    }
    kind = str(inner.pop("_target_", "")).rpartition(".")[2]
    own = [f"{key}={shown(value)}" for key, value in inner.items() if "_target_" not in key]
    own = [text for text in own if not text.startswith("_partial_")]
    return clip(f"{kind} ({', '.join(own)})" if own else kind, 200)


def _epochs(runs: list[Run], most: str) -> str:
    trained = sorted({run.record.epochs for run in runs if run.record.epochs is not None})
    if not trained:
        return most and f"at most {most}"
    first, last = trained[0], trained[-1]
    text = f"{first} trained" if first == last else f"{first} to {last} trained"
    return f"{text}, at most {most}" if most else text


def _batch(size: str, num_processes: str) -> str:
    return size if num_processes in ("", "1") else f"{size} a process, {num_processes} processes"


def _versions(run: Run) -> str:
    known = run.record.versions.items()
    return ", ".join(f"{name} {version}" for name, version in known if name != "commit")


def _command(variant: Variant) -> str:
    """The overrides of a run, with all seeds of the variant; machine, folders and sweep go."""
    overrides = [
        shlex.quote(override)
        for override in variant.runs[0].record.overrides
        if names_variant(key_of(override))
    ]
    seeds = ",".join(map(str, variant.seeds))
    many = ["-m"] if len(variant.seeds) > 1 else []
    return " ".join([typed("train"), *many, *overrides, f"seed={seeds}"])
