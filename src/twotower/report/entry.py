"""What a run folder says of its run, finished or not. Imports no torch."""

import csv
import io
import shlex
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel

from twotower.files import open_ordinary, read_bytes
from twotower.report.record import Text as Line
from twotower.report.record import read_record, reason
from twotower.run import search_files
from twotower.run.run_folder import HYDRA, RunFolder
from twotower.run.settings import changes_result, is_within, key_of, repeated
from twotower.wording import override, printable, resume_command, shown_path, typed

MAX_YAML = 1 << 20  # bytes
SWEEP_DIR = "hydra.sweep.dir"
# what a command of a sweep says to Hydra of the places of configs and runs, and of the machines
PLACES = ("hydra.sweep", "hydra.searchpath", "hydra.launcher")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast


class _Overrides(BaseModel):
    task: list[Line] = []
    hydra: list[Line] = []


class _Runtime(BaseModel):
    choices: dict[str, Line | None] = {}


class _Hydra(BaseModel):
    """What Hydra writes about a command."""

    overrides: _Overrides = _Overrides()
    runtime: _Runtime = _Runtime()


class Entry(NamedTuple):
    """A run.

    Attributes:
        folder: where it is.
        written: when it last wrote, in seconds since 1970.
        status: ``finished``, ``pruned`` (a trial of a search that was ended early), ``running``,
            ``failed``, ``interrupted`` or ``damaged``.
        model: name of the option; empty if not known.
        data: name of the option; empty if not known.
        overrides: as given.
        val: validation metric; of an unfinished run the best so far.
        test: test metric.
        note: why it failed or cannot be read.
    """

    folder: RunFolder
    written: float
    status: str
    model: str = ""
    data: str = ""
    overrides: tuple[str, ...] = ()
    val: float | None = None
    test: float | None = None
    note: str = ""

    @property
    def settings(self) -> list[str]:
        """The overrides that change a result, without model and data, which have their place."""
        shown = []
        for text in self.overrides:
            key = key_of(text)
            if key not in ("model", "data") and changes_result(key):
                shown.append(text)
        return shown

    @property
    def is_left(self) -> bool:
        """Can a command go on with it?"""
        return self.status in ("failed", "interrupted")

    @property
    def command(self) -> str:
        """How to go on with a run that is of no sweep: from its checkpoint, or anew."""
        if self.folder.last.exists():
            return resume_command(self.folder.last, repeated(self.overrides))
        return " ".join([typed("train"), *map(shlex.quote, self.overrides)])


def read(folder: RunFolder, metric: str) -> Entry:
    """What a folder says; what cannot be read is a note."""
    written = 0.0
    try:
        written = _written(folder)
        record = read_record(folder.record)
    except FileNotFoundError:
        return _unfinished(folder, written, metric)
    except (OSError, ValueError) as error:
        note = f"metrics.json cannot be used: {reason(error)}"
        return Entry(folder, written, "damaged", note=note)
    about = (record.model, record.data, tuple(record.overrides))
    values = (record.val.get(metric), record.test.get(metric))
    status = "pruned" if record.status == "pruned" else "finished"
    return Entry(folder, written, status, *about, *values)


def _unfinished(folder: RunFolder, written: float, metric: str) -> Entry:
    status, note = "interrupted", ""
    if folder.is_running():
        status = "running"
    elif folder.failure.exists():
        status, note = "failed", printable(folder.read_error())
    hydra = _read_hydra(folder.path / HYDRA / "hydra.yaml") or _Hydra()
    choices, overrides = hydra.runtime.choices, tuple(hydra.overrides.task)
    about = (choices.get("model") or "", choices.get("data") or "", overrides)
    best = _best(folder, f"val/{metric}")
    return Entry(folder, written, status, *about, best, note=note)


def sweep_command(folder: Path) -> str:
    """The command that goes on with the sweep in a folder; empty if there is none."""
    hydra = _read_hydra(folder / "multirun.yaml")
    if hydra is None:
        return ""
    given, is_elsewhere = list(hydra.overrides.task), folder.parent.name != "sweeps"
    for text in hydra.overrides.hydra:
        key = key_of(text)
        if key == SWEEP_DIR:  # may have been relative to another folder, or hold the time
            is_elsewhere = True
        elif is_within(key, PLACES):
            given.append(text)
    words = [typed("train"), "-m", *map(shlex.quote, given)]
    if is_elsewhere:  # the command would put it into a folder of its own choice
        words.append(override(SWEEP_DIR, shown_path(folder)))
    return " ".join(words)


def is_over(folder: Path) -> bool:
    """Is there a search in the folder whose trials have all ended? A failed one is not repeated."""
    try:
        about, rows = search_files.read(folder)
        budget = int(about["budget"])
        variants = {*about["overrides"], *(row["variant"] for row in rows)}
        ended = Counter(row["variant"] for row in rows if row["state"] in search_files.ENDED)
    except (OSError, ValueError, KeyError, TypeError, csv.Error, yaml.YAMLError):
        return False
    return ended.total() == len(rows) and all(ended[name] >= budget for name in variants)


def _written(folder: RunFolder) -> float:
    """When the run last wrote a file."""
    files = (folder.record, folder.failure, folder.last, folder.log)
    times = [path.stat().st_mtime for path in files if path.exists()]
    return max(times) if times else folder.path.stat().st_mtime


def _best(folder: RunFolder, name: str) -> float | None:
    """The largest value of a column of ``metrics.csv``; None without one."""
    try:
        with open_ordinary(folder.log) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
            return max((float(row[name]) for row in rows if row.get(name)), default=None)
    except (OSError, ValueError, csv.Error):
        return None


def _read_hydra(path: Path) -> _Hydra | None:
    """Hydra's own node of a config that it wrote; None if there is none or it is damaged."""
    try:
        config = yaml.load(read_bytes(path, MAX_YAML), LOADER)
        return _Hydra.model_validate(config["hydra"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return None
