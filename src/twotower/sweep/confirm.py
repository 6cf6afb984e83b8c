"""The best setting of each variant of a search, trained with new seeds and tested."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from twotower.errors import UserError
from twotower.run.run_folder import RunFolder
from twotower.run.search_files import ABOUT, ENDED, TRIALS, read
from twotower.run.settings import key_of
from twotower.sweep.plan import as_override
from twotower.sweep.trials import COLUMNS
from twotower.wording import clip, shown_path


class _About(BaseModel):
    """``search.yaml``."""

    mode: str
    budget: int
    seed: int
    data: str
    space: dict[str, dict[str, Any]]
    overrides: dict[str, list[str]]


class _Winner(NamedTuple):
    """The best trial of a variant.

    Attributes:
        overrides: of the variant, without those that the command replaces.
        found: the budget, and the value of each setting that was searched.
    """

    overrides: list[str]
    found: list[str]


def confirming_jobs(
    folder: str | None, place: Path, num_seeds: Any, given: list[str]
) -> list[list[str]]:
    """The overrides of each run: for every seed the best setting of every variant.

    Args:
        folder: of the search.
        place: folder of the sweep that confirms it.
        num_seeds: how many seeds, from the one after the search's.
        given: overrides of the command, which come last.

    Raises:
        UserError: if there is no search, its variants have different numbers of trials, or the
            sweep's folder has runs of another state of the search.
    """
    if folder is None:
        raise UserError(
            "search is missing: give the folder of a search, search=<output_dir>/sweeps/search-…"
        )
    if not isinstance(num_seeds, int) or isinstance(num_seeds, bool) or num_seeds < 1:
        raise UserError(f"seeds must be a whole number of 1 or more, got {num_seeds!r}")
    searched = Path(folder)
    about, rows = _read(searched)
    replaced = {key_of(text) for text in given}
    winners = []
    for label, texts in about.overrides.items():
        row = _best([row for row in rows if row["variant"] == label], label, about, searched)
        kept = [text for text in texts if key_of(text) not in replaced]
        values = [f"{key}={_value(row[key])}" for key in about.space[label]]
        winners.append(_Winner(kept, [f"budget={about.budget}", *values]))
    _refuse_another_state(place, winners, about.budget)
    return [
        [*winner.overrides, *winner.found, f"seed={seed}", *given]
        for seed in range(about.seed + 1, about.seed + 1 + num_seeds)
        for winner in winners
    ]


def _refuse_another_state(place: Path, winners: Iterable[_Winner], budget: int) -> None:
    """Refuse to add to runs from before the search went on: a report would count both."""
    for path in sorted(place.glob("*/")):
        own = _overrides_of(RunFolder(path))
        for winner in winners:
            missing = [text for text in winner.found if text not in own]
            if not missing or not set(winner.overrides) <= set(own):
                continue
            key = key_of(missing[0])
            before = next((text for text in own if key_of(text) == key), f"without {key}")
            raise UserError(
                f"{shown_path(place)} confirms the search as it was with {before}, and now it has "
                f"{missing[0]}: give hydra.sweep.dir={shown_path(place)}-{budget}, or move the "
                "folder away"
            )


def _overrides_of(run: RunFolder) -> list[str]:
    """The overrides of a run, also of one that is unfinished; empty if it was not begun."""
    if record := run.read_record():
        return list(record.get("overrides", []))
    try:
        found = yaml.safe_load(run.config.with_name("overrides.yaml").read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return found if isinstance(found, list) else []


def _read(searched: Path) -> tuple[_About, list[dict[str, str]]]:
    if not searched.is_dir():
        raise UserError(
            f"search={searched}: there is no such folder; give that of a search, "
            "<output_dir>/sweeps/search-<data>"
        )
    try:
        plain, rows = read(searched)
        about = _About.model_validate(plain)
    except FileNotFoundError as error:
        raise UserError(
            f"search={searched}: there is no {Path(error.filename).name}; give the folder of a "
            "search, <output_dir>/sweeps/search-<data>"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, (ABOUT, *first["loc"])))
        wrong = f"{name}: {first['msg']}, got {clip(repr(first['input']), 60)}"
        raise _damaged(searched, wrong) from None
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        raise _damaged(searched, str(error).splitlines()[0]) from None
    if not about.overrides or not rows or not set(COLUMNS) <= rows[0].keys():
        raise UserError(f"search={searched}: {TRIALS} has no trials")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise _damaged(searched, f"line {number} of {TRIALS} has too few or too many cells")
    for label in about.overrides:
        if label not in about.space:
            raise _damaged(searched, f"{ABOUT} has no space of {label}")
        for key in about.space[label]:
            if key not in rows[0]:
                raise _damaged(searched, f"{TRIALS} has no column {key}")
    return about, rows


def _damaged(searched: Path, what: str) -> UserError:
    cure = "repeat the command of the search, which writes its files again"
    return UserError(f"search={searched}: its files cannot be read: {what}; {cure}")


def _best(rows: list[dict[str, str]], label: str, about: _About, searched: Path) -> dict[str, str]:
    num_ended = sum(row["state"] in ENDED for row in rows)
    if num_ended != about.budget:
        budget = max(num_ended, about.budget)
        raise UserError(
            f"search={searched}: {label} has {num_ended} ended trials and the budget is "
            f"{about.budget}: finish the search with all variants and budget={budget}"
        )
    values = []
    for row in rows:
        if row["state"] != "complete":
            continue
        try:
            value = float(row["value"])
        except ValueError:
            trial = f"trial {row['number']} of {label}"
            wrong = f"{trial} in {TRIALS} is complete with the value {row['value']!r}"
            raise _damaged(searched, wrong) from None
        if math.isfinite(value):
            values.append((value, row))
    if not values:
        raise UserError(f"search={searched}: no trial of {label} is complete")
    return (max if about.mode == "max" else min)(values, key=lambda pair: pair[0])[1]


def _value(text: str) -> str:
    """A cell of ``trials.csv`` in Hydra's grammar: a word that is no number is a text."""
    if text.lower() in ("null", "true", "false"):
        return text.lower()
    try:
        float(text)
    except ValueError:
        return as_override(text)
    return text
