"""Waiting for processes by what they do, not by the clock: a loaded machine is slow, and that is no failure."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from twotower.processes import descendants

PAUSE_S = 0.01
LOOK_S = 5.0
IDLE_LOOKS = 120  # in a row without any work, 10 minutes: it hangs


def cpu_seconds(pid: int) -> float:
    """What a process and those that it has started have computed; 0 for what has ended."""
    ticks = 0
    for one in (pid, *descendants(pid)):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(
            map(int, fields[11:15])
        )  # user and system time, its own and of its ended children
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Notices when none of some processes works any more."""

    def __init__(self, *processes: subprocess.Popen) -> None:
        self.processes = processes
        self.seen = -1.0
        self.idle = 0
        self.looked = time.monotonic()

    def check(self) -> None:
        """Fail if none of them has computed anything in many looks."""
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
    """Wait for ``condition`` as long as the processes live and work.

    Raises:
        AssertionError: if one of them ends or all hang before it holds.
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
    """Output and errors of a process, once it has ended.

    Raises:
        AssertionError: if it hangs.
    """
    watch = Watch(process)
    while True:
        try:
            return process.communicate(timeout=LOOK_S)
        except subprocess.TimeoutExpired:
            watch.check()
