"""Errors that users can correct, checks of settings, and steps that may fail with a warning."""

import math
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from twotower.wording import clip, warn

FULL_ERROR = "HYDRA_FULL_ERROR"
T = TypeVar("T")


class UserError(ValueError):
    """A wrong setting, file or folder. The message is one line: what, where, how to mend it."""


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse values other than finite numbers in ``[low, high]``.

    Raises:
        UserError: naming the setting.
    """
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or not low <= number <= high:
        bounds = f" >= {low:g}" if high == math.inf else f" between {low:g} and {high:g}"
        raise UserError(
            f"{name} must be a finite number{'' if low == -math.inf else bounds}, got {value!r}"
        )


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse values other than ``choices``.

    Raises:
        UserError: naming the setting and the choices.
    """
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def results(attempts: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all attempts.

    Raises:
        UserError: with what is wrong in all of them, so that it is mended at once.
    """
    found, wrong = [], []
    for attempt in attempts:
        try:
            found.append(attempt())
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("; ".join(wrong))
    return found


@contextmanager
def extra(what: str) -> Iterator[None]:
    """Turn any error inside into a warning; ``HYDRA_FULL_ERROR=1`` also prints its traceback.

    Args:
        what: is missing after an error, such as ``the plots are``.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get(FULL_ERROR) == "1":
            traceback.print_exc()
        reason = clip(str(error), 300)
        warn(f"{what} left out: {type(error).__name__}{f': {reason}' if reason else ''}")
