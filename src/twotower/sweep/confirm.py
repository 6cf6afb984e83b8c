"""The best setting of each variant of a search, trained with new seeds and tested."""

import csv
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from twotower.errors import UserError
from twotower.run.search_files import TRIALS, read
from twotower.run.settings import key_of
from twotower.sweep.search import as_override
from twotower.sweep.trials import COLUMNS


class _About(BaseModel):
    """``search.yaml``."""

    mode: str
    budget: int
    seed: int
    data: str
    space: dict[str, dict[str, Any]]
    overrides: dict[str, list[str]]


def confirming_jobs(folder: str | None, num_seeds: int, given: list[str]) -> list[list[str]]:
    """The overrides of each run: for every seed the best setting of every variant.

    Args:
        folder: of the search.
        num_seeds: how many seeds, from the one after the search's.
        given: overrides of the command, which come last.

    Raises:
        UserError: if there is no search, or its variants have different numbers of trials.
    """
    if folder is None:
        raise UserError(
            "search is missing: give the folder of a search, search=<output_dir>/sweeps/search-…"
        )
    searched = Path(folder)
    about, rows = _read(searched)
    best = {}
    for label in about.overrides:
        own = [row for row in rows if row["variant"] == label]
        best[label] = _best(own, label, about, searched)
    replaced = {key_of(text) for text in given}
    jobs = []
    for seed in range(about.seed + 1, about.seed + 1 + num_seeds):
        for label, texts in about.overrides.items():
            row = best[label]
            kept = [text for text in texts if key_of(text) not in replaced]
            values = [f"{key}={_value(row[key])}" for key in about.space[label]]
            jobs.append([*kept, *values, f"seed={seed}", f"budget={about.budget}", *given])
    return jobs


def _read(searched: Path) -> tuple[_About, list[dict[str, str]]]:
    try:
        plain, rows = read(searched)
        about = _About.model_validate(plain)
    except FileNotFoundError as error:
        raise UserError(
            f"search={searched}: there is no {Path(error.filename).name}; give the folder of a "
            "search, <output_dir>/sweeps/search-<data>"
        ) from None
    except (OSError, ValueError, ValidationError, csv.Error, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"search={searched}: its files cannot be read: {first}") from None
    if not about.overrides or not rows or not set(COLUMNS) <= rows[0].keys():
        raise UserError(f"search={searched}: {TRIALS} has no trials")
    return about, rows


def _best(rows: list[dict[str, str]], label: str, about: _About, searched: Path) -> dict[str, str]:
    num_ended = sum(row["state"] != "running" for row in rows)
    if num_ended != about.budget:
        budget = max(num_ended, about.budget)
        raise UserError(
            f"search={searched}: {label} has {num_ended} ended trials and the budget is "
            f"{about.budget}: finish the search with all variants and budget={budget}"
        )
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        raise UserError(f"search={searched}: no trial of {label} is complete")
    return (max if about.mode == "max" else min)(complete, key=lambda row: float(row["value"]))


def _value(text: str) -> str:
    """A cell of ``trials.csv`` in Hydra's grammar: a word that is no number is a text."""
    if text.lower() in ("null", "true", "false"):
        return text.lower()
    try:
        float(text)
    except ValueError:
        return as_override(text)
    return text
