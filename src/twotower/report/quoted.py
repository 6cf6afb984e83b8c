"""Published figures of other projects, from a YAML file, for the data sets that they fit."""

from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from twotower.errors import UserError
from twotower.report.record import Text, reason
from twotower.report.variants import Variant

OURS = "docs/published.yaml"
PACKAGED = Path(__file__).with_name("published.yaml")  # in this repository a link to OURS


class Entry(BaseModel):
    """What one source reports for one data set, see ``docs/published.yaml``."""

    model_config = ConfigDict(extra="forbid")
    source: Text
    data: list[str]
    users: int
    settings: dict[str, str | int | float | bool]
    models: dict[Text, dict[str, float]]


class Quoted(NamedTuple):
    """A published row.

    Attributes:
        model: its name in the source.
        source: who published it.
        metrics: by our names.
    """

    model: str
    source: str
    metrics: dict[str, float]


def read(path: str | None) -> list[Entry]:
    """The entries of a file, by default of this project's own; none for no path.

    Raises:
        UserError: if it cannot be read or has another form.
    """
    if path is None:
        return []
    try:
        file = PACKAGED if path == OURS and not Path(path).exists() else Path(path)
        return TypeAdapter(list[Entry]).validate_python(yaml.safe_load(file.read_text()))
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = f"quoted={path} cannot be read as docs/published.yaml can: {reason(error)}"
        raise UserError(message) from error


def fitting(
    entries: list[Entry], data: str, num_users: int | None, variants: list[Variant]
) -> list[Quoted]:
    """Rows of the same data, number of test users (if known) and settings as all ``variants``."""
    rows = []
    for entry in entries:
        settings = entry.settings.items()
        is_same_protocol = num_users in (None, entry.users) and all(
            settings <= variant.settings.items() for variant in variants
        )
        if data in entry.data and is_same_protocol:
            rows += [Quoted(model, entry.source, row) for model, row in entry.models.items()]
    return rows
