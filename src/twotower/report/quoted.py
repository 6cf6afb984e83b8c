"""Figures of others, from a YAML file, for the data sets and settings that they fit."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from twotower.errors import UserError
from twotower.files import read_bytes
from twotower.report.schema import Text, first_line
from twotower.report.section import Section

ROOT = Path(__file__).parents[3]
MAX_BYTES = 1 << 20


class Entry(BaseModel):
    """What one source says of one data set."""

    model_config = ConfigDict(strict=True, extra="forbid")
    source: Text
    data: list[str]
    users: int
    settings: dict[str, Any]
    models: dict[Text, dict[Text, float]]


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
        place = Path(path) if Path(path).exists() else ROOT / path
        entries = yaml.safe_load(read_bytes(place, MAX_BYTES))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"quoted={path} cannot be read: {first_line(error)}") from error
    found = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [None], 1):
        try:
            found.append(Entry.model_validate(entry).model_dump())
        except ValidationError as error:
            keys = ", ".join(sorted(Entry.model_fields))
            raise UserError(
                f"quoted={path}: entry {number} must have {keys}, as docs/published.yaml has ({first_line(error)})"
            ) from error
    return found


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
    return all(
        row.variant.settings.get(key) == value for row in section.rows for key, value in wanted
    )
