"""Names of runs and settings in W&B."""

import re
from pathlib import Path
from typing import Any

from twotower.files import short_hash
from twotower.run.settings import ADDRESS, key_of, names_variant

UNNAMED = ("model", "data")  # options that begin the name
LONGEST = 112  # W&B allows 128 characters, and the seed follows
UNLOGGED = ("paths", "logger", "ckpt_path", "trusted")


def variant(choices: dict[str, Any], overrides: list[str]) -> str:
    """The name that all seeds of a variant share: ``dat movielens_1m lambda3=0``.

    A hash stands for the end of a long name and for the folder of a file, so that two variants
    never have the same name.

    Args:
        choices: option of each config group.
        overrides: of the command line.
    """
    named = [override for override in overrides if _is_named(override)]
    name = " ".join([choices["model"], choices["data"], *map(_short, named)])
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}@{short_hash(name)}"


def flatten(choices: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Options and settings under dotted names; of absolute paths only the last part.

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
        elif not key.startswith("_") and not ADDRESS.fullmatch(key):  # it may hold a token
            found[f"{prefix}{key}"] = (
                Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
            )


def _is_named(override: str) -> bool:
    """Does it change what is computed, and is it not in the name already?"""
    return override.lstrip("+").split("=")[0] not in UNNAMED and names_variant(key_of(override))


def _short(override: str) -> str:
    """``loss.lambda3=0`` as ``lambda3=0``, a file by its name."""
    key, given, value = override.lstrip("+").partition("=")
    if not given:
        return f"~{key.split('.')[-1]}"
    name = Path(value).name
    cut = "" if name == value else f"@{short_hash(value)[:4]}"
    return f"{key.split('.')[-1]}={name}{cut}"
