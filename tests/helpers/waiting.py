"""Wait for processes as long as they compute: a time limit would fail on a loaded machine."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from twotower.processes import descendants

PAUSE_S = 0.01
LOOK_S = 5.0
IDLE_LOOKS = 120  # looks in a row without any computation, 10 minutes: the process hangs


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants; 0 for processes that have ended."""
    ticks = 0
    for one in (pid, *descendants(pid)):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # user and system time of the process and of its ended children
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Detects that none of several processes computes any more."""

    def __init__(self, *processes: subprocess.Popen) -> None:
        self.processes = processes
        self.seen = -1.0
        self.idle = 0
        self.looked = time.monotonic()

    def check(self) -> None:
        """Raise an AssertionError if none has computed anything in ``IDLE_LOOKS`` looks."""
        if time.monotonic() - self.looked < LOOK_S:
            return
        self.looked = time.monotonic()
        now = sum(cpu_seconds(process.pid) for process in self.processes)
        self.idle = 0 if now != self.seen else self.idle + 1
        self.seen = now
        if self.idle >= IDLE_LOOKS:
            for process in self.processes:
                process.kill()
            raise AssertionError(f"no progress: {[process.args for process in self.processes]}")


def wait_until(condition: Callable[[], object], *processes: subprocess.Popen) -> None:
    """Wait for ``condition`` while the processes run.

    Raises:
        AssertionError: if one of them ends or all hang before it is true.
    """
    watch = Watch(*processes)
    while not condition():
        for process in processes:
            assert process.poll() is None or condition(), (
                f"{process.args} ended with {process.returncode} before"
            )
        watch.check()
        time.sleep(PAUSE_S)


def finish(process: subprocess.Popen) -> tuple[str, str]:
    """Wait for the end of a process and return its output and errors.

    Raises:
        AssertionError: if it hangs.
    """
    watch = Watch(process)
    while True:
        try:
            return process.communicate(timeout=LOOK_S)
        except subprocess.TimeoutExpired:
            watch.check()
