"""Progress of long preparations on the screen: stages, and waiting for another process."""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from twotower import locks
from twotower.wording import PlainConsole


class Stages:
    """A progress bar over named stages, on standard error; call it when a stage starts."""

    def __init__(self, what: str, stages: tuple[str, ...]) -> None:
        self.what = what
        self.stages = stages
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()
        self._current = ""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        console = PlainConsole(stderr=True)
        # into a file, rich would write an empty line at the end
        is_shown = console.is_interactive
        self._progress = Progress(*columns, console=console, transient=True, disable=not is_shown)
        self._task = self._progress.add_task(f"preparing {what}", total=len(stages))

    def __enter__(self) -> "Stages":
        """Show the bar."""
        self._progress.start()
        return self

    def __call__(self, stage: str) -> None:
        """Start ``stage``, which ends the one before."""
        self._finish()
        self._current = stage
        self._progress.update(
            self._task,
            description=f"preparing {self.what}: {stage}",
            completed=self.stages.index(stage),
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Remove the bar."""
        self._finish()
        self._progress.stop()

    def _finish(self) -> None:
        now = time.perf_counter()
        if self._current:
            self.seconds[self._current] = now - self._started
        self._started = now


def waiting_lock(path: Path, message: str) -> AbstractContextManager[int]:
    """Hold a lock; print ``message`` while waiting, see :func:`twotower.locks.alone`."""
    return locks.alone(path, message, PlainConsole(stderr=True, soft_wrap=True).print)
