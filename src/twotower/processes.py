"""Other processes: which ones there are, how they do, and how they end."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_S = 10.0  # to end by itself, before it is killed
PR_SET_PDEATHSIG = 1  # of prctl(2)


def descendants(pid: int) -> list[int]:
    """Processes that ``pid`` has started, and theirs; empty where the system does not tell.

    Python's resource trackers are left out: they clean up after the others, and end by themselves.
    """
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:  # it has just ended
            continue
        for child in children:
            if "resource_tracker" not in command(child):
                found += [child, *descendants(child)]
    return found


def command(pid: int) -> str:
    """Command line of a process; empty where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return text.decode(errors="replace").replace("\0", " ").strip()


def state(pid: int) -> str:
    """``running``, ``stopped`` (by SIGSTOP, Ctrl-Z or a debugger), or ``gone``."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "running" if not Path("/proc/self").exists() and _exists(pid) else "gone"
    letter = text.rpartition(")")[2].split()[0]  # the name before it may hold anything
    return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(letter, "running")


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue


def end(pids: Iterable[int]) -> None:
    """Ask processes to end, wait a little, and kill those that stay."""
    left = list(pids)
    send(left, signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    while left and time.monotonic() < until:
        left = [pid for pid in left if state(pid) != "gone"]
        time.sleep(0.02)
    send(left, signal.SIGKILL)


def end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, however that ends (Linux only).

    Args:
        parent: process id of the parent. If it has ended already, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
