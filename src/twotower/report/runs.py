"""Reads run folders, and explains why a run is excluded."""

import math
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from twotower.metrics.base import RankMetric
from twotower.report.ranks import Ranks, read_ranks
from twotower.report.record import Record, read_record, reason
from twotower.run.run_folder import RunFolder
from twotower.wording import printable

NOT_TESTED = "not tested, as a trial of a search is not"


class Run(NamedTuple):
    """A finished run.

    Attributes:
        folder: where it is.
        name: of the folder, relative to the parent of all runs of the report.
        record: ``metrics.json``.
        ranks: of its test targets, or why they cannot be used.
    """

    folder: Path
    name: str
    record: Record
    ranks: Ranks | str


class LeftOut(NamedTuple):
    """A run that is not counted, and why."""

    name: str
    reason: str


def read(folder: Path, name: str, metrics: dict[str, RankMetric]) -> Run | LeftOut:
    """A finished run with all of ``metrics``, or why it is left out."""
    try:
        record = read_record(RunFolder(folder).record)
    except FileNotFoundError:
        return LeftOut(name, _unfinished(RunFolder(folder)))
    except (OSError, ValueError) as error:
        return LeftOut(name, f"damaged: metrics.json cannot be used ({reason(error)})")
    if not record.test:
        return LeftOut(name, NOT_TESTED)
    missing = [metric for metric in metrics if not math.isfinite(record.test.get(metric, math.nan))]
    if missing:
        return LeftOut(name, f"no test value of {', '.join(missing)}")
    return Run(folder, name, record, read_ranks(folder, metrics, record.test))


def with_trials_in_one(left_out: list[LeftOut]) -> list[LeftOut]:
    """The runs that are not counted, with all trials of a search as one of them."""
    trials = Counter(str(Path(run.name).parent) for run in left_out if run.reason == NOT_TESTED)
    others = [run for run in left_out if run.reason != NOT_TESTED]
    return others + [LeftOut(name, f"{count} runs {NOT_TESTED}") for name, count in trials.items()]


def _unfinished(folder: RunFolder) -> str:
    if folder.failure.exists():
        return f"failed: {printable(folder.read_error())}"
    paths = [path for path in (folder.path, folder.log, folder.last) if path.exists()]
    written = time.localtime(max(path.stat().st_mtime for path in paths))
    when = time.strftime("%Y-%m-%d %H:%M", written)
    state = "running" if folder.is_running() else "interrupted"
    return f"not finished: {state}; last written {when}"
