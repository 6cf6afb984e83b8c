"""The classes that a checkpoint may name: those of ``conf/``, torch's optimizers, and trusted ones.

Which packages are trusted is the setting ``trusted=[mylab.]``, or ``TWOTOWER_TRUSTED`` in the
environment. A checkpoint cannot set it. A class with any other name is never imported.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from twotower.errors import UserError
from twotower.run.checks.own_code import CURE, is_installed
from twotower.run.conf import CONF
from twotower.run.settings import FIXED
from twotower.wording import one_line

VARIABLE = "TWOTOWER_TRUSTED"
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
TORCH_OPTIMIZER = re.compile(r"torch\.optim\.[A-Z]\w*")
READER_NAMES = ("name", "folder", "variant", "dataset", "category")  # become parts of paths
PLAIN_NAME = re.compile(r"\w[\w.+&-]*")


class UntrustedError(UserError):
    """A checkpoint names a class of a package that the user has not said to trust."""


def trusted_packages(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Prefixes of module names, each with a dot at its end: ``mylab.`` is not ``mylabevil.``.

    Args:
        given: the setting ``trusted``; None: what ``TWOTOWER_TRUSTED`` lists, separated by commas.

    Raises:
        UserError: for something else than the name of a package, such as an empty text or ``*``.
    """
    where = "trusted" if given is not None else VARIABLE
    if given is None:
        given = os.environ[VARIABLE].split(",") if os.environ.get(VARIABLE) else []
    found = []
    for name in [given] if isinstance(given, str) else given:
        stripped = name.strip().removesuffix(".") if isinstance(name, str) else ""
        if not NAME.fullmatch(stripped):
            raise UserError(f"{where} has {name!r}, which is not a package: name your own, mylab.")
        found.append(f"{stripped}.")
    return tuple(found)


def check_targets(config: dict[str, Any], trusted: tuple[str, ...]) -> None:
    """Refuse a checkpoint's config that names a class, or a folder, that it may not name.

    Args:
        config: plain containers.
        trusted: see :func:`trusted_packages`.

    Raises:
        UntrustedError: for a class of a package that may be the user's own.
        UserError: for anything else; both name the setting.
    """
    for place, target in targets(config):
        is_known = isinstance(target, str) and target in _known_targets()
        if not is_known and not TORCH_OPTIMIZER.fullmatch(str(target)):
            _check_trusted(place, target, trusted)
    for key in READER_NAMES:
        value = config["data"]["reader"].get(key)
        if isinstance(value, str) and not PLAIN_NAME.fullmatch(value):
            raise UserError(
                f"its config has data.reader.{key}={value!r}, which is not a plain name"
            )


def targets(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each ``_target_`` in nested plain containers, with the dotted name of its place."""
    pairs: Any = enumerate(node) if isinstance(node, list) else ()
    if isinstance(node, dict):
        pairs = node.items()
        if "_target_" in node:
            yield place, node["_target_"]
    for key, value in pairs:
        yield from targets(value, f"{place}.{key}" if place else str(key))


@cache
def _known_targets() -> frozenset[str]:
    """The classes that the options of ``conf/`` name for what a checkpoint decides."""
    found = set()
    for root in FIXED:
        for path in (CONF / root).rglob("*.yaml"):
            option = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            found |= {target for _, target in targets(option)}
    return frozenset(found)


def _check_trusted(place: str, target: object, trusted: tuple[str, ...]) -> None:
    """Accept a class or function that is defined in a trusted package.

    The module that defines it counts: ``mylab.models.os.system`` is not of ``mylab``.
    """
    what = f"its config would build {target} as {place}"
    package = str(target).split(".")[0]
    is_name = isinstance(target, str) and NAME.fullmatch(target) and "." in target
    if not is_name or package in ("twotower", *sys.stdlib_module_names):
        raise UserError(f"{what}, where it does not belong: refused")
    if not str(target).startswith(trusted):
        cure = f"trusted=[{package}.], or {VARIABLE}={package}."
        raise UntrustedError(f"{what}: if {package} is your own package, give {cure}")
    module, _, name = str(target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the import of a module can raise anything
        cure = "" if is_installed(module) else f": {CURE}"
        reason = one_line(error)
        raise UserError(f"{what}, and it cannot be imported: {reason}{cure}") from error
    is_code = inspect.isclass(found) or inspect.isfunction(found)
    if not is_code or not f"{found.__module__}.".startswith(trusted):
        raise UserError(f"{what}, which is not defined in a trusted package: refused")
