"""What a report takes from a run's records: anything else is left out, and what does not fit is named."""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from twotower.files import read_json
from twotower.run.moved import renamed
from twotower.run.records import is_number
from twotower.wording import printable

LONGEST_NAME = 200
LONGEST_TEXT = 10_000
STRICT = ConfigDict(strict=True)


def _shown(text: str) -> str:
    """Without what a terminal or a page would obey; not empty."""
    text = printable(text).strip()
    if not text:
        raise ValueError("nothing of it can be shown")
    return text


def _plain(value: Any) -> Any:
    """A setting's value that can be compared with others and be shown."""
    if isinstance(value, str):
        return printable(value)[:LONGEST_TEXT]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > 2**63:
        return f"{value:.6e}" if abs(value) < 10**300 else "a huge number"
    return value


def _numbers(values: Any) -> Any:
    """Metrics that are numbers; whether those that are wanted are among them is asked later."""
    if not isinstance(values, dict):
        return values
    return {name: float(value) for name, value in values.items() if is_number(value)}


Name = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_shown)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(printable)]
Setting = Annotated[str | int | float | bool | None, BeforeValidator(_plain)]


class Category(BaseModel):
    """One of a run's categories."""

    model_config = STRICT
    name: Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(printable)]
    train_interactions: int = Field(0, ge=0, le=2**63)


class Record(BaseModel):
    """``metrics.json``, what of it a report reads."""

    model_config = STRICT
    status: Name = "completed"
    model: Name
    data: Name
    data_fingerprint: Name
    split_fingerprint: Name | None = None
    data_note: Text | None = None
    seed: int = Field(ge=0, lt=2**32)
    overrides: list[Text] = Field(max_length=1000)
    settings: dict[Text, Setting] | None = Field(None, max_length=5000)
    test: Annotated[dict[str, float], BeforeValidator(_numbers)]
    categories: list[Category] | None = Field(None, max_length=10_000)


class Failure(BaseModel):
    """``failed.json``."""

    model_config = STRICT
    error: str


def read_record(path: Path) -> dict[str, Any]:
    """The fields of :class:`Record`, without those that are null.

    Raises:
        OSError: if it cannot be read.
        ValueError: for what is no such record; its text says what does not fit.
    """
    record = _read(path, Record)
    return {name: renamed(value) if name == "settings" else value for name, value in record.items()}


def read_failure(path: Path) -> str:
    """Why a run has failed.

    Raises:
        OSError: if it cannot be read.
        ValueError: for what is no such record.
    """
    return str(_read(path, Failure)["error"])


def first_line(error: object) -> str:
    """An error in one line that can be shown."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:LONGEST_NAME]
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        error = f"{where}: {first['msg'].removeprefix('Value error, ')}{more}"
    return " ".join(printable(str(error)).split())[:300]


def _read(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"it is no object but a {type(content).__name__}")
    return kind.model_validate(content).model_dump(exclude_none=True)
