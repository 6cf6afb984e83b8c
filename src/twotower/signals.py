"""SIGTERM and Ctrl-C end any command with one line and exit code 143 or 130."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
SAME_S = 1.0  # `timeout`, a terminal and a parent process may each send the same signal


class Stopped(SystemExit):
    """Raised by a signal; neither ``except Exception`` nor Lightning catches it.

    Args:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it: a launcher's process sends it to the process that waits for it."""
        return Stopped, (self.signum,)


class _State:
    """The state of signal handling in this process."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}  # handlers to restore
        self.hook_before: Any = None  # sys.unraisablehook
        self.asked: int | None = None  # the signal that was received
        self.when = 0.0
        self.depth = 0  # of running(): above 0, there is something to unwind
        self.deferred: Callable[[int], None] | None = None  # gets the signal instead of a raise
        self.hint: Callable[[], str] | None = None  # what to do next
        self.at_stop: list[Callable[[], None]] = []


_state = _State()


def listen() -> None:
    """Handle SIGTERM and Ctrl-C; before :func:`running` is entered, they end the process at once.

    An ignored signal stays ignored: shells ignore Ctrl-C for background jobs.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for signum in WORDS:
        handler = signal.getsignal(signum)
        if handler is not signal.SIG_IGN and handler is not _handle:
            _state.before[signum] = signal.signal(signum, _handle)
    if sys.unraisablehook is not _raise_again:
        _state.hook_before, sys.unraisablehook = sys.unraisablehook, _raise_again


def give_back() -> None:
    """Undo :func:`listen`."""
    for signum, handler in _state.before.items():
        signal.signal(signum, handler)
    if _state.hook_before:
        sys.unraisablehook = _state.hook_before
    _state.__init__()  # type: ignore[misc]


@contextmanager
def running() -> Iterator[None]:
    """Inside, a signal raises :class:`Stopped`, so that unfinished work is cleaned up."""
    outermost = not _state.before
    if outermost:  # in a launcher's process, which runs none of our scripts
        listen()
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
        if outermost:
            give_back()


def defer(tell: Callable[[int], None] | None) -> None:
    """Pass the first signal to ``tell`` from now on; a second one raises. None: raise again.

    Threads cannot change it: signals reach the main thread, which knows what they do.
    """
    if threading.current_thread() is threading.main_thread():
        _state.deferred = tell


def asked() -> int | None:
    """The signal that was received, or None."""
    return _state.asked


def raise_if_asked() -> None:
    """Raise if a signal was received.

    Raises:
        Stopped: for that signal.
    """
    if _state.asked is not None:
        raise Stopped(_state.asked)


def on_stop(
    hint: Callable[[], str] | None = None, action: Callable[[], None] | None = None
) -> None:
    """Register what happens after a signal, once the stack is unwound.

    Args:
        hint: says how to continue; the first one counts, so that of a sweep, not of its run.
        action: called before the hint is printed, for example to end child processes.
    """
    _state.hint = _state.hint or hint
    if action:
        _state.at_stop.append(action)


def finish(signum: int) -> int:
    """Print the line and return the exit code, after :class:`Stopped` has reached the top."""
    for action in _state.at_stop:
        action()
    if is_first():
        print(_line(signum, _state.hint() if _state.hint else ""), file=sys.stderr, flush=True)
    return 128 + signum


def _handle(signum: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    again = _state.asked is not None
    if again and now - _state.when < SAME_S:
        return
    _state.asked, _state.when = signum, now
    if _state.depth == 0:
        if is_first():
            os.write(2, f"{_line(signum, '')}\n".encode())  # Python's own stream may be in use
        os._exit(128 + signum)
    if _state.deferred and not again:
        _state.deferred(signum)
    else:
        raise Stopped(signum)


def _raise_again(lost: Any) -> None:
    """Send the signal again if Python dropped its exception in a destructor or weakref callback."""
    if not isinstance(lost.exc_value, Stopped):
        (_state.hook_before or sys.__unraisablehook__)(lost)
        return
    _state.asked = None
    threading.Timer(0.05, os.kill, [os.getpid(), lost.exc_value.signum]).start()


def _line(signum: int, hint: str) -> str:
    return WORDS[signal.Signals(signum)] + (f"; {hint}" if hint else "")


def is_first() -> bool:
    """Is this the only or the first process of its run?"""
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and os.environ.get("SLURM_PROCID", "0") != "0":
        return False
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
