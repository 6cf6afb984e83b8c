"""Records of runs as anybody may have written them: fields of a wrong kind are left out."""

from collections.abc import Callable
from typing import Any

LARGEST = 1e9  # of a metric, ours are shares; and of seconds


def fitting(record: Any) -> dict[str, Any]:
    """The fields of a run's record that are what they should be; any other is as good as missing."""
    if not isinstance(record, dict):
        return {}
    return {
        name: value for name, value in record.items() if name not in FIELDS or FIELDS[name](value)
    }


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    """Can it be a metric's value?"""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= LARGEST  # false for NaN too


def _is_duration(value: Any) -> bool:
    return is_number(value) and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


FIELDS: dict[str, Callable[[Any], bool]] = {
    "model": _is_text,
    "data": _is_text,
    "error": _is_text,
    "overrides": _are_texts,
    "wall_seconds": _is_duration,
    "val": _are_numbers,
    "test": _are_numbers,
}
