"""How W&B calls a run and its settings."""

import re
from pathlib import Path
from typing import Any

UNNAMED = ("model", "data", "seed", "paths", "logger", "callbacks", "trainer", "hydra", "ckpt_path", "debug")  # overrides
UNLOGGED = ("paths", "logger", "ckpt_path")


def variant(choices: dict[str, Any], overrides: list[str]) -> str:
    """What a run computes, but for its seed: ``dat movielens_1m lambda3=0``.

    Args:
        choices: option of each config group.
        overrides: of the command line.
    """
    return " ".join([choices["model"], choices["data"], *map(_short, filter(_is_named, overrides))])


def flatten(choices: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Options and settings under dotted names, as they stand on the command line; of folders the last part alone.

    Args:
        choices: option of each config group.
        settings: plain nested containers.
    """
    found = {group: option for group, option in choices.items() if option is not None}
    _flatten("", settings, found)
    return {key: value for key, value in found.items() if re.split("[./]", key)[0] not in UNLOGGED}


def _flatten(prefix: str, node: dict[str, Any], found: dict[str, Any]) -> None:
    for key, value in node.items():
        if isinstance(value, dict):
            _flatten(f"{prefix}{key}.", value, found)
        elif not key.startswith("_"):
            found[f"{prefix}{key}"] = Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _is_named(override: str) -> bool:
    """Does it tell what is computed, and is it not in the name already?"""
    key = override.lstrip("+~").split("=")[0]
    return key not in UNNAMED and key.split(".")[0] not in UNNAMED[3:]


def _short(override: str) -> str:
    """``loss.lambda3=0`` as ``lambda3=0``, a file by its name."""
    key, _, value = override.lstrip("+").partition("=")
    return f"{key.split('.')[-1]}={Path(value).name}"
