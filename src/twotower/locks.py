"""Locks between processes, with messages that name the process that holds one."""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twotower import processes
from twotower.wording import masked, printable

PAUSE_S = 0.1  # between two attempts
REMIND_S = 60.0  # between two messages
LONGEST_COMMAND = 120


@contextmanager
def alone(path: Path, waits: str, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock file ``path``; wait while another process holds it.

    The system frees the lock when its holder ends, even if it is killed; the file stays. While the
    lock is held, the file names the process that holds it. On NFS it works across machines.

    Args:
        path: of the lock file; its folder is made.
        waits: reason to wait, such as ``another process is preparing globo: waiting for it``.
        say: called with ``waits`` and the holder, at once and every minute.

    Yields:
        The open file. A child process that inherits it holds the lock until both have ended.

    Raises:
        OSError: if the file cannot be written.
    """
    with _opened(path) as lock:
        _wait(lock, path, waits, say)
        with _signed(lock):
            yield lock


def open_lock(path: Path) -> int:
    """Open a lock file and make it if it is missing.

    Raises:
        OSError: if it cannot be written, or is a link: the target of the link would be truncated.
    """
    try:  # O_NONBLOCK: opening a pipe would block
        return os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        reason = "a link in the place of a lock file: delete it"
        raise OSError(errno.ELOOP, reason, str(path)) from None


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file ``path`` unless another process does; yields whether it is held here.

    Raises:
        OSError: if the file cannot be written.
    """
    with _opened(path) as lock:
        if not _try(lock):
            yield False
            return
        with _signed(lock):
            yield True


def holder(path: Path) -> str:
    """The process that holds the lock file ``path`` and how to end it: a clause for a message."""
    try:
        record = json.loads(path.read_text())
        pid, host, since = int(record["pid"]), str(record["host"]), str(record["since"])
        command = printable(str(record["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        return f"an unknown process holds {path}"
    who = f"process {pid} on {printable(host)} (since {printable(since)}: {command}) holds {path}"
    if host != socket.gethostname():
        return who
    state = processes.state(pid)
    if state == "gone":
        ended = f"process {pid} has ended, but a process that it started holds {path}"
        return f"{ended}; `fuser {path}` shows it"
    if state == "stopped":
        return f"{who}; it is stopped: kill -CONT {pid} lets it go on, kill -KILL {pid} ends it"
    return f"{who}; kill {pid} ends it"


def _wait(lock: int, path: Path, waits: str, say: Callable[[str], None]) -> None:
    said = -REMIND_S
    while not _try(lock):
        if time.monotonic() - said >= REMIND_S:
            said = time.monotonic()
            say(f"{waits}; {holder(path)}")
        time.sleep(PAUSE_S)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open_lock(path)
    try:
        yield lock
    finally:
        os.close(lock)


@contextmanager
def _signed(lock: int) -> Iterator[None]:
    """Inside, the file names this process as the holder."""
    record = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": masked(" ".join([Path(sys.executable).name, *sys.argv]))[:LONGEST_COMMAND],
    }
    _write(lock, json.dumps(record))
    try:
        yield
    finally:
        _write(lock, "")


def _write(lock: int, text: str) -> None:
    with suppress(OSError):  # on a full disk the lock works without a name
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)
