"""Figures of others, from a YAML file, for the data sets and settings that they fit."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from twotower.report.section import Section
from twotower.types import UserError

ROOT = Path(__file__).parents[3]
KEYS = {"source", "data", "users", "settings", "models"}


class Quoted(NamedTuple):
    """A row that somebody published.

    Attributes:
        model: their name for it.
        source: who says so.
        metrics: by our names.
    """

    model: str
    source: str
    metrics: dict[str, float]


def read(path: str | None) -> list[dict[str, Any]]:
    """The entries of the file, looked for in the current folder and in this project's; none for no path.

    Raises:
        UserError: if it is not there or not of that form (see ``docs/published.yaml``).
    """
    if path is None:
        return []
    try:
        entries = yaml.safe_load((Path(path) if Path(path).exists() else ROOT / path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"quoted={path} cannot be read: {' '.join(str(error).split())}") from error
    for place, entry in enumerate(entries if isinstance(entries, list) else [None], 1):
        if not isinstance(entry, dict) or set(entry) != KEYS or not all(_are_numbers(row) for row in entry["models"].values()):
            raise UserError(f"quoted={path}: entry {place} must have {', '.join(sorted(KEYS))}, as docs/published.yaml has")
    return entries


def fitting(entries: list[dict[str, Any]], section: Section) -> list[Quoted]:
    """Rows of the same data, the same number of test users and the same protocol as all variants of ``section``."""
    return [
        Quoted(model, entry["source"], metrics)
        for entry in entries
        if section.name in entry["data"] and _same_protocol(entry, section)
        for model, metrics in entry["models"].items()
    ]


def _same_protocol(entry: dict[str, Any], section: Section) -> bool:
    if section.num_users not in (None, entry["users"]):
        return False
    wanted = entry["settings"].items()
    return all(row.variant.settings.get(key) == value for row in section.rows for key, value in wanted)


def _are_numbers(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(value, (int, float)) for value in row.values())
