"""Run folders: which there are, what each holds, and why one cannot be counted."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from twotower.errors import UserError
from twotower.report.schema import first_line, read_failure, read_record
from twotower.run import settings
from twotower.run.records import is_number
from twotower.run.run_folder import SIGNS, RunFolder
from twotower.wording import duration


class Run(NamedTuple):
    """A finished run.

    Attributes:
        folder: where it is.
        name: the folder's name for people: as given and below, never an absolute path of its own.
        record: ``metrics.json``, see :class:`twotower.report.schema.Record`.
        settings: see :func:`twotower.run.settings.flat`.
    """

    folder: Path
    name: str
    record: dict[str, Any]
    settings: dict[str, settings.Value]

    def without(self, keys: list[str]) -> "Run":
        """The run as if nobody knew of these settings."""
        kept = {key: value for key, value in self.settings.items() if key not in keys}
        overrides = [
            override
            for override in self.record["overrides"]
            if override.lstrip("+~").split("=")[0] not in keys
        ]
        return self._replace(settings=kept, record={**self.record, "overrides": overrides})


class LeftOut(NamedTuple):
    """A run folder that is not counted, and why."""

    name: str
    reason: str


def find(places: list[str]) -> list[Path]:
    """Run folders at or below ``places``, folders or globs, in order of their names; none twice.

    Raises:
        UserError: if a place is not there or holds no run.
    """
    found: dict[Path, None] = {}
    for place in places:
        roots = (
            [Path(place)]
            if Path(place).exists()
            else sorted(Path().glob(place) if place[:1] != "/" else _absolute(place))
        )
        below = [folder for root in roots for folder in sorted(_run_folders(root))]
        if not below:
            raise UserError(
                f"runs={place}: there is no run folder; a run leaves .hydra and metrics.json in its own"
            )
        found |= dict.fromkeys(below)
    return list({folder.resolve(): folder for folder in found}.values())


def _absolute(place: str) -> list[Path]:
    return list(Path("/").glob(place.lstrip("/")))


def _run_folders(root: Path) -> Iterator[Path]:
    """``root`` itself, or the run folders nearest below it; links are followed, in circles once."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        try:
            real = folder.resolve()
            if not folder.is_dir() or real in seen:
                continue
            inner = list(folder.iterdir())
        except (OSError, RuntimeError):  # not ours to read, or a link to itself
            continue
        seen.add(real)
        if any(path.name in SIGNS for path in inner):
            yield folder
        else:
            waiting += [path for path in inner if not path.name.startswith(".")]


def read(folder: Path, name: str, metrics: list[str]) -> Run | LeftOut:
    """A finished run with all of ``metrics``, or why it is none."""
    path = RunFolder(folder).record
    if not os.path.lexists(path):
        return LeftOut(name, _unfinished(folder))
    try:
        record = read_record(path)
    except (OSError, ValueError) as error:
        return LeftOut(name, f"damaged: {_reason(error)}")
    if record["status"] != "completed":
        return LeftOut(name, f"its status is {record['status']}")
    if "settings" not in record:
        return LeftOut(name, "its settings are not known: metrics.json has none")
    unusable = [metric for metric in metrics if not is_number(record["test"].get(metric))]
    if unusable:
        return LeftOut(name, f"no test value of {', '.join(unusable)}")
    # null is as good as unset: a setting may be younger than a run
    found = {key: value for key, value in record["settings"].items() if value is not None}
    return Run(folder, name, record, found)


def _reason(error: OSError | ValueError) -> str:
    """What is wrong with metrics.json."""
    if not isinstance(error, ValidationError):
        return f"metrics.json cannot be read ({first_line(error)})"
    missing = [str(entry["loc"][0]) for entry in error.errors() if entry["type"] == "missing"]
    if missing:
        return f"metrics.json lacks {', '.join(missing)}"
    return f"metrics.json does not fit ({first_line(error)})"


def _unfinished(folder: Path) -> str:
    failed = RunFolder(folder).failure
    if os.path.lexists(failed):
        try:
            return f"failed: {first_line(read_failure(failed))}"
        except (OSError, ValueError):
            return "failed, and failed.json is damaged"
    half = (
        " (metrics.json was being written)" if (folder / ".metrics.json.partial").exists() else ""
    )
    try:
        times = [path.lstat().st_mtime for path in folder.rglob("*") if not path.is_dir()]
        newest = max(times, default=folder.stat().st_mtime)
    except OSError:  # another process removes what is listed
        return f"not finished{half}: running, or killed"
    return (
        f"not finished{half}: running, or killed; last written {duration(time.time() - newest)} ago"
    )
