"""The progress of runs that are trained in one pass: a bar, and a line for each epoch of them."""

import math
import time
from collections.abc import Sequence
from typing import Any

from twotower.training.fused.whole_steps import Member
from twotower.training.progress import bar, epoch_name, monitor_of, short_name
from twotower.wording import PlainConsole, duration, number


class Epochs:
    """Prints a line when all runs of a pass have ended an epoch, and shows a bar on a terminal."""

    def __init__(self) -> None:
        self._epoch: int | None = None  # that is trained
        self._name = ""  # of it
        self._began = 0.0
        self._bar = bar() if PlainConsole().is_interactive else None
        self._task: Any = None  # of the bar

    def show(self, members: Sequence[Member]) -> None:
        """Show where the members are, before their next steps.

        Args:
            members: all at the same step.
        """
        epoch, batch = members[0].place
        if epoch != self._epoch:
            if self._epoch is not None:
                self._print(members)
            self._epoch, self._began = epoch, time.perf_counter()
            self._name = epoch_name(members[0].trainer)
            self.hide()
            if self._bar is not None:
                self._bar.start()
                name = f"{_runs(members)}, {self._name}"
                self._task = self._bar.add_task(name, total=len(members[0].loader), figures="")
        if self._bar is not None:
            self._bar.update(self._task, completed=batch)

    def hide(self) -> None:
        """Remove the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()
            self._task = None

    def _print(self, members: Sequence[Member]) -> None:
        seconds = time.perf_counter() - self._began
        parts = [f"{_runs(members)}, {self._name}"]
        monitor = monitor_of(members[0].trainer)
        found = [member.trainer.callback_metrics.get(monitor) for member in members]
        values = sorted(value.item() for value in found if value is not None)
        if values:
            parts.append(f"{short_name(monitor)} {number(values[0])} to {number(values[-1])}")
        parts.append(duration(seconds))
        left = (members[0].trainer.max_epochs or -1) - members[0].place[0]
        if 0 < left < math.inf:
            parts.append(f"~{duration(seconds * left)} left")
        print("  ".join(parts), flush=True)


def _runs(members: Sequence[Member]) -> str:
    return f"{len(members)} run{'s' * (len(members) != 1)}"
