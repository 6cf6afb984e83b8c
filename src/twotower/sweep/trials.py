"""What is known of each trial of a search, and the files that say it: trials.csv, search.yaml."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import yaml

from twotower.files import MAX_RECORD, read_bytes, write_text
from twotower.run.run_folder import RunFolder
from twotower.run.search_files import ABOUT, ENDED, TRIALS
from twotower.run.settings import Value
from twotower.sweep.plan import share_of_seconds
from twotower.wording import masked

JOURNAL = "journal.log"  # Optuna's
COLUMNS = ("variant", "number", "state", "value", "epochs", "seconds")


class Outcome(NamedTuple):
    """How a trial has ended.

    Attributes:
        state: ``complete``, ``pruned`` or ``failed``.
        value: the best of the monitored validation metric; None of a failed trial.
        epochs: that were trained.
        seconds: that it took.
        error: why it has failed.
        curve: the metric by the number of epochs trained.
    """

    state: str
    value: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    error: str = ""
    curve: dict[int, float] = {}


class Trial(NamedTuple):
    """A trial that was asked for.

    Attributes:
        number: of its variant, from 0.
        values: by setting.
        thresholds: see :class:`twotower.training.pruning.Pruning`.
        outcome: None while it is under way.
    """

    number: int
    values: dict[str, Value]
    thresholds: list[float | None] | None
    outcome: Outcome | None

    @property
    def state(self) -> str:
        """``complete``, ``pruned``, ``failed`` or ``running``."""
        return self.outcome.state if self.outcome else "running"


def outcome_of(folder: RunFolder, monitor: str) -> Outcome | None:
    """What a trial's folder says; None if it has not ended.

    A trial whose metric is not a finite number has failed.

    Args:
        folder: of the trial.
        monitor: name of the metric, such as ``val/ndcg@10``.
    """
    record = folder.read_record()
    if record:
        curve = {int(epoch): value for epoch, value in (record.get("curve") or {}).items()}
        state = "pruned" if record.get("status") == "pruned" else "complete"
        value = record["val"].get(monitor.removeprefix("val/"))
        seconds = round(share_of_seconds(record), 3)
        if state == "complete" and not _is_finite(value):
            error = f"{monitor} is not a finite number"
            return Outcome("failed", None, record["epochs"], seconds, error)
        return Outcome(state, value, record["epochs"], seconds, curve=curve)
    if folder.failure.exists():
        return Outcome("failed", error=folder.read_error())
    return None


def best_of(trials: Iterable[Trial], mode: str) -> Trial | None:
    """The best trial that was trained to its end; of several the first, None if there is none."""
    complete = []
    for trial in trials:
        if trial.outcome and trial.state == "complete" and _is_finite(trial.outcome.value):
            complete.append((trial.outcome.value, trial))
    if not complete:
        return None
    return (max if mode == "max" else min)(complete, key=lambda pair: pair[0])[1]


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def write_trials(folder: Path, trials: Sequence[tuple[str, Trial]]) -> None:
    """Write ``trials.csv``.

    Args:
        folder: of the search.
        trials: each with the label of its variant.
    """
    settings = list(dict.fromkeys(key for _, trial in trials for key in trial.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *settings])
    for label, trial in trials:
        outcome = trial.outcome or Outcome("running")
        known = (outcome.value, outcome.epochs, outcome.seconds)
        values = [_cell(trial.values.get(key, "")) for key in settings]
        cells = ["" if value is None else value for value in known]
        writer.writerow([label, trial.number, outcome.state, *cells, *values])
    write_text(folder / TRIALS, text.getvalue())


def read_ended(folder: Path) -> Counter[str]:
    """How many trials of each variant have ended, as ``trials.csv`` says; none without it."""
    try:
        text = read_bytes(folder / TRIALS, MAX_RECORD).decode()
    except (OSError, ValueError):
        return Counter()
    rows = csv.DictReader(text.splitlines())
    return Counter(row.get("variant", "") for row in rows if row.get("state") in ENDED)


def _cell(value: Value) -> Value:
    return "null" if value is None else value


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write ``search.yaml``: what was searched, and how."""
    write_text(folder / ABOUT, masked(yaml.safe_dump(about, sort_keys=False)))
