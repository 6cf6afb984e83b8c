"""What counts as the value of a metric in a record."""

from typing import Any

LARGEST = 1e9  # ours are shares


def is_number(value: Any) -> bool:
    """Can it be a metric's value?"""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= LARGEST  # false for NaN too
