"""Files of ours that anybody may have written: only ordinary ones of bounded size are read."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_RECORD = 16 << 20  # bytes of a record; a run's has some ten thousand
LARGEST = 1e9  # of a metric and of seconds


def read_bytes(path: Path, most: int) -> bytes:
    """The content of an ordinary file, or of one that a link leads to.

    A pipe, a device or a socket is refused at once: reading it could wait or go on for ever.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: if it cannot be read.
        ValueError: for what is no ordinary file, and for a larger one.
    """
    _check_ordinary(path.stat())  # before it is opened: that alone can wake a device
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe put there since then keeps nobody
    with os.fdopen(file, "rb") as opened:
        _check_ordinary(os.fstat(file))
        content = opened.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most >> 20:,} MiB")
    return content


def read_json(path: Path, most: int = MAX_RECORD) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: if it cannot be read.
        ValueError: see :func:`read_bytes`, and for what is no JSON, or nested too deeply.
    """
    try:
        return json.loads(read_bytes(path, most))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_ordinary(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no ordinary file")


def fitting(record: Any) -> dict[str, Any]:
    """The fields of a run's record that are what they should be; any other is as good as missing."""
    if not isinstance(record, dict):
        return {}
    return {name: value for name, value in record.items() if name not in FIELDS or FIELDS[name](value)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_duration(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


FIELDS: dict[str, Callable[[Any], bool]] = {
    "model": _is_text,
    "data": _is_text,
    "error": _is_text,
    "overrides": _are_texts,
    "wall_seconds": _is_duration,
    "val": _are_numbers,
    "test": _are_numbers,
}
