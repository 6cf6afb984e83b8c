"""Other processes: find them, read their state, end them; and the cores shared with them."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_S = 10.0  # before a process is killed
PR_SET_PDEATHSIG = 1  # of prctl(2)
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds, and per how many


def wait_without_spinning() -> None:
    """Let OpenMP's threads sleep at barriers; call it before torch is imported.

    Threads that spin wait a time slice of the scheduler at each barrier when another process uses
    their core: a training then takes more than ten times as long. The user's own setting stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def available_cores() -> int:
    """Cores that this process may use: by its CPU affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_QUOTA.read_text().split())
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores
    return max(1, min(cores, quota // period))


def descendants(pid: int) -> list[int]:
    """Processes that ``pid`` has started, and their own; empty without ``/proc``.

    Python's resource trackers are left out: they clean up after the others and end by themselves.
    """
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:  # it has just ended
            continue
        for child in children:
            if b"resource_tracker" not in _command(child):
                found += [child, *descendants(child)]
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def state(pid: int) -> str:
    """``running``, ``stopped`` (by SIGSTOP, Ctrl-Z or a debugger) or ``gone``.

    Without ``/proc``, a stopped process counts as running.
    """
    try:
        os.kill(pid, 0)
        text = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return "gone"
    except OSError:  # another user's process, or a system without /proc
        return "running"
    letter = text.rpartition(")")[2].split()[0]  # the name before it may contain spaces
    return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(letter, "running")


def started(pid: int) -> str:
    """When a process started, in the system's ticks; with the id it names one process for good.

    Empty for a process that is gone, and without ``/proc``.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to processes; ended ones are skipped."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue


def end(pids: Iterable[int]) -> None:
    """Ask processes to end, wait up to ``GRACE_S`` seconds, then kill the rest."""
    left = list(pids)
    send(left, signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    while left and time.monotonic() < until:
        left = [pid for pid in left if state(pid) != "gone"]
        time.sleep(0.02)
    send(left, signal.SIGKILL)


def end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends (Linux only).

    Args:
        parent: process id of the parent. If it has ended already, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
