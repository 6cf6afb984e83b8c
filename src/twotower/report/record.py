"""The fields of metrics.json that a report uses."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, ValidationError

from twotower.files import read_json
from twotower.run.moved import renamed
from twotower.run.settings import Value, is_unset
from twotower.wording import printable

Text = Annotated[str, AfterValidator(printable)]
FINGERPRINTS = AliasChoices("split_fingerprint", "data_fingerprint")  # older records have only one


class Category(BaseModel):
    """A category of the corpus; the list goes from the largest to the smallest."""

    name: Text


class Record(BaseModel):
    """``metrics.json``; other fields are ignored.

    Attributes:
        settings: flat, see :func:`twotower.run.settings.flat`; without those that are unset,
            as a setting may be newer than a run.
        status: ``completed``; ``pruned``: a trial of a search that was ended early.
        epochs: that were trained.
        budget: trials of the search that chose the settings; None: there was none.
        popularity: metrics of ranking by the number of training interactions.
        oracle: metrics of the best possible ranking, of synthetic data.
        interactions_per_user: of training, the mean over its users; older records have none.
        versions: of packages, and the commit.
    """

    model: Text
    data: Text
    split_fingerprint: Text = Field(validation_alias=FINGERPRINTS)
    data_note: Text = ""
    seed: int
    overrides: list[Text]
    settings: dict[str, Value]
    val: dict[str, float] = {}
    test: dict[str, float]
    categories: list[Category] = []
    status: Text = "completed"
    epochs: int | None = None
    budget: int | None = None
    popularity: dict[str, float] | None = None
    oracle: dict[str, float] | None = None
    interactions_per_user: float | None = None
    versions: dict[Text, Text] = {}


def read_record(path: Path) -> Record:
    """Read ``metrics.json``.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged or a field is missing.
    """
    record = Record.model_validate(read_json(path))
    known = {key: value for key, value in record.settings.items() if not is_unset(key, value)}
    return record.model_copy(update={"settings": renamed(known)})


def reason(error: Exception) -> str:
    """Why a file cannot be used, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return printable(str(error)).strip()
