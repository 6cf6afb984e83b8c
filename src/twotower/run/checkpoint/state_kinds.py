"""Compares states in a checkpoint with examples of what belongs in their place."""

import math
from enum import Enum
from typing import Any

from torch import Tensor

from twotower.errors import UserError
from twotower.run.checkpoint.checkpoints import is_dense

LARGEST = 2**53  # of counts


def taken(found: Any, own: Any, where: str) -> Any:
    """What our own state has, with the values that were found.

    Args:
        found: a part of a checkpoint.
        own: the state of what is to take it up; its values are examples.
        where: name of the part, for messages.

    Raises:
        UserError: for a key that is missing and a value of another kind.
    """
    if isinstance(own, dict):
        if not isinstance(found, dict):
            raise UserError(f"{where} is {_shown(found)}, where a dictionary belongs")
        if missing := [key for key in own if key not in found]:
            raise UserError(f"{where} has no {missing[0]}")
        return {key: taken(found[key], value, f"{where}.{key}") for key, value in own.items()}
    if not is_like(found, own):
        raise UserError(f"{where} is {_shown(found)}, where {_kind(own)} belongs")
    return found


def _shown(value: Any) -> str:
    return type(value).__name__ if isinstance(value, (dict, list, tuple, Tensor)) else repr(value)


def is_like(found: Any, own: Any) -> bool:
    """Is a value of the kind of our own? Counts are whole and not negative, numbers finite."""
    if isinstance(own, Enum):
        return found in [member.value for member in type(own)]
    if isinstance(own, bool) or own is None:
        return type(found) is bool if own is not None else found is None or isinstance(found, str)
    if isinstance(own, int):
        return type(found) is int and 0 <= found < LARGEST
    if isinstance(own, float):
        return type(found) in (int, float) and math.isfinite(found)
    if isinstance(own, Tensor):
        return is_dense(found) and found.shape == own.shape and not bool(found.isnan().any())
    if isinstance(own, (list, tuple)):
        return isinstance(found, (list, tuple))
    return isinstance(found, type(own))


def _kind(own: Any) -> str:
    if isinstance(own, bool):
        return "true or false"
    if isinstance(own, (int, float)):
        return "a number"
    return "a tensor of one number" if isinstance(own, Tensor) else f"a {type(own).__name__}"
