"""Says while a sweep runs how many of its runs have ended, and how long the others may take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from threading import Event, Thread

from twotower.sweep.plan import Run, share_of_seconds
from twotower.wording import duration

POLL_S = 1.0


@contextmanager
def watching(
    runs: list[Run], at_once: int, ended: Callable[[], None] | None = None
) -> Iterator[None]:
    """Inside, print a line whenever a run has ended, in whichever process or machine.

    Args:
        runs: all runs of the sweep; those that are done are counted.
        at_once: how many run at a time.
        ended: called instead, in a thread of its own.
    """
    before = [(run, _when(run)) for run in runs if run.status != "done"]
    left = Event()
    thread = Thread(target=_watch, args=(before, len(runs), at_once, left, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _watch(
    before: list[tuple[Run, list[float]]],
    num_runs: int,
    at_once: int,
    left: Event,
    tell: Callable[[], None] | None,
) -> None:
    began, num_ended, is_over = time.perf_counter(), 0, False
    while not is_over:
        is_over = left.wait(POLL_S)
        ended = [run for run, when in before if _when(run) != when]
        if len(ended) > num_ended:
            num_ended = len(ended)
            if tell is not None:
                tell()
                continue
            done = num_runs - len(before) + num_ended
            line = f"{done} of {num_runs} runs ended"
            if done < num_runs:
                seconds = _seconds_each(ended, time.perf_counter() - began, at_once)
                line += f", about {duration(seconds * (num_runs - done))} left"
            print(f"{line}\n", end="", flush=True)  # one write: other threads print, too


def _when(run: Run) -> list[float]:
    """When the run's record and failure were written: a change means that the run has ended."""
    return [_changed(path) for path in (run.place.record, run.place.failure)]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _seconds_each(ended: list[Run], seconds: float, at_once: int) -> float:
    """Seconds of the sweep for a run: its pace, or at its begin the runs' own times if shorter."""
    records = [run.place.read_record() for run in ended]
    own = [share_of_seconds(record) for record in records if "wall_seconds" in record]
    pace = seconds / len(ended)
    return min(pace, mean(own) / at_once) if own else pace
