"""Packages whose classes a checkpoint may name beside those of ``conf/``: the user says which.

The setting is ``trusted=[mylab.]``, or ``TWOTOWER_TRUSTED`` in the environment. A checkpoint cannot
set it.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable

from twotower.errors import UserError
from twotower.run.checks.own_code import CURE, is_installed

VARIABLE = "TWOTOWER_TRUSTED"
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class UntrustedError(UserError):
    """A checkpoint names a class of a package that the user has not said to trust."""


def trusted_packages(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Prefixes of module names, each with a dot at its end: ``mylab.`` is not ``mylabevil.``.

    Args:
        given: the setting ``trusted``; None: what ``TWOTOWER_TRUSTED`` lists, separated by commas.

    Raises:
        UserError: for what is no name of a package, such as an empty text or ``*``.
    """
    where = "trusted" if given is not None else VARIABLE
    if given is None:
        given = os.environ[VARIABLE].split(",") if os.environ.get(VARIABLE) else []
    found = []
    for name in [given] if isinstance(given, str) else given:
        stripped = name.strip().removesuffix(".") if isinstance(name, str) else ""
        if not NAME.fullmatch(stripped):
            raise UserError(f"{where} has {name!r}, which is no package: name your own, mylab.")
        found.append(f"{stripped}.")
    return tuple(found)


def check_trusted(place: str, target: object, trusted: tuple[str, ...]) -> None:
    """Accept a class or function that is defined in a trusted package.

    The definition counts and not the name alone: ``mylab.models.os.system`` is not of ``mylab``.

    Args:
        place: where it stands in the checkpoint's config.
        target: its dotted name, as the checkpoint has it.
        trusted: see :func:`trusted_packages`.

    Raises:
        UntrustedError: if the package may be the user's own; the message names the setting.
        UserError: for anything else.
    """
    what = f"its config would build {target} as {place}"
    if not isinstance(target, str) or not NAME.fullmatch(target) or "." not in target:
        raise UserError(f"{what}, where it does not belong: refused")
    if not target.startswith(trusted):
        package = target.split(".")[0]
        if package in ("twotower", *sys.stdlib_module_names):
            raise UserError(f"{what}, where it does not belong: refused")
        cure = f"trusted=[{package}.], or {VARIABLE}={package}."
        raise UntrustedError(f"{what}: if {package} is your own package, give {cure}")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # of the import of any module
        reason = " ".join(str(error).split())
        cure = "" if is_installed(module) else f": {CURE}"
        raise UserError(f"{what}, and {module} cannot be imported: {reason}{cure}") from error
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise UserError(f"{what}, and {module} has no class or function {name}")
    if not f"{found.__module__}.".startswith(trusted):
        raise UserError(f"{what}, which {found.__module__} defines, not a trusted package: refused")
