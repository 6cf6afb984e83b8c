"""Builds objects from plain nodes: the part of Hydra's ``instantiate`` that the configs use, without its interpolations."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.utils import get_object
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from twotower.errors import UserError
from twotower.run.checks.own_code import CURE, is_installed


def construct(place: str, node: Any, **extra: Any) -> Any:
    """Call what ``_target_`` names with the node's other values; nested nodes are built first.

    Texts are passed on as they stand, whatever they hold: ``hydra.utils.instantiate`` would
    evaluate ``${…}`` in them.

    Args:
        place: dotted name of the node in the config, for messages.
        node: plain containers. ``_partial_: true`` gives a function that still takes arguments.
        extra: more arguments of the outermost call.

    Raises:
        UserError: for a target that cannot be imported, and one that refuses its arguments.
    """
    if isinstance(node, list):
        return [construct(f"{place}[{index}]", value) for index, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    settings = {key: construct(f"{place}.{key}", value) for key, value in node.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return settings
    if unknown := [key for key in settings if not isinstance(key, str) or key.startswith("_")]:
        raise UserError(f"{place}.{unknown[0]} is no setting: a node has _target_ and _partial_")
    target = node["_target_"]
    make = _callable(place, target)
    if node.get("_partial_"):
        return partial(make, **settings, **extra)
    try:
        return make(**settings, **extra)
    except (UserError, MisconfigurationException, OSError, MemoryError):
        raise
    except Exception as error:
        if "memory" in str(error):  # torch's RuntimeError for a table that is too large
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{place} does not fit {target}: {reason}") from error


def _callable(place: str, target: Any) -> Callable[..., Any]:
    try:
        found = get_object(target)
    except Exception as error:  # of the import of any module
        reason = " ".join(str(error).split())
        cure = "" if is_installed(str(target)) else f": {CURE}"
        raise UserError(f"{place}._target_={target} cannot be imported: {reason}{cure}") from error
    if not callable(found):
        raise UserError(f"{place}._target_={target} cannot be called")
    return found
