"""What the variants of a search have in common, and the refusal of another one in its folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from twotower.errors import UserError
from twotower.files import short_hash
from twotower.run.settings import changes_result, key_of
from twotower.sweep.candidates import Candidate
from twotower.sweep.space import read_space, refuse_differences
from twotower.wording import masked

OWN = ("sweep", "search", "budget", "sampler", "pruner", "trials_at_once", "dry", "test", "seed")
OF_VARIANTS = ("variant", "model", "loss")  # in which those that join a search may differ
Abouts = dict[str, dict[str, Any]]  # plain values, by the label of a variant


def abouts_of(candidates: Sequence[Candidate], config: DictConfig, pruner: str) -> Abouts:
    """What the journal keeps of each variant.

    Args:
        candidates: the variants.
        config: of the search.
        pruner: that is used.
    """
    alike = _alike(candidates, config, pruner)
    found = {}
    for one in candidates:
        space = {key: distribution.plain() for key, distribution in one.space.items()}
        identity = [one.base.fingerprint, space, config.sampler, pruner]
        kept = [text for text in one.base.overrides if not _is_own(key_of(text))]
        found[one.label] = {
            "identity": short_hash(json.dumps(identity), 16),
            "alike": alike,
            "overrides": [masked(text) for text in kept],
            "space": space,
        }
    return found


def refuse_another(
    folder: Path, candidates: Sequence[Candidate], own: Abouts, known: Abouts
) -> None:
    """Refuse to go on with another search, or to add variants that would be searched otherwise.

    Args:
        folder: of the search.
        candidates: the variants of this command.
        own: what would be kept of them.
        known: what is kept of the variants of earlier commands.

    Raises:
        UserError: naming what differs.
    """
    new = [label for label in own if label not in known]
    for label, about in known.items() if new else ():
        alike = own[new[0]]["alike"]
        for key in {**alike, **about["alike"]}:
            here, there = (part.get(key, "unset") for part in (alike, about["alike"]))
            if here != there:
                raise UserError(
                    f"{new[0]} would be searched with {key}={here}, and {label} in "
                    f"{folder.name} has {key}={there}: search them alike, or give "
                    "hydra.sweep.dir=<another>"
                )
    earlier: dict[str, Any] = {label: read_space(one["space"]) for label, one in known.items()}
    refuse_differences({**earlier, **{one.label: one.space for one in candidates}})
    for label, about in own.items():
        if label in known and known[label]["identity"] != about["identity"]:
            raise UserError(
                f"the search in this folder has {label} with other settings, another space, "
                "sampler or pruner: move the folder away, or give hydra.sweep.dir=<another>"
            )


def refuse_small_budget(folder: Path, budget: int, num_trials: Mapping[str, int]) -> None:
    """Refuse a budget that a variant has spent more than: the others would have less.

    Raises:
        UserError: naming the variant.
    """
    for label, number in num_trials.items():
        if number > budget:
            raise UserError(
                f"budget={budget}: {label} in {folder.name} has {number} trials already: give "
                f"budget={number} or more"
            )


def _alike(candidates: Sequence[Candidate], config: DictConfig, pruner: str) -> dict[str, str]:
    """What all variants of a search have in common, by setting."""
    shared = set.intersection(*(set(one.base.overrides) for one in candidates))
    given = {key_of(text): masked(text).partition("=")[2] for text in sorted(shared)}
    return {
        **{
            key: value
            for key, value in given.items()
            if changes_result(key) and key.split(".")[0] not in (*OWN, *OF_VARIANTS)
        },
        "data": candidates[0].base.data,
        "seed": str(config.seed),
        "sampler": config.sampler,
        "pruner": pruner,
        "callbacks.best.monitor": str(config.callbacks.best.monitor),
    }


def _is_own(key: str) -> bool:
    """Is a setting one of the search, and not of its variants?"""
    return key.split(".")[0] in OWN or key.startswith("callbacks.pruning")
