"""Find packages, and the source of their modules, without importing them."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

CURE = "set PYTHONPATH to the folder that contains the package, or install it"


def is_installed(module: str) -> bool:
    """Can Python find the package of a module? If not, its import fails."""
    package = module.split(".")[0]
    return package in sys.modules or _spec(package, None) is not None


def source_of(module: str) -> Path | None:
    """The file of a module, None if there is none to read, such as for a compiled one.

    Args:
        module: dotted name.
    """
    package, *inner = module.split(".")
    name, spec = package, _spec(package, None)
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = _spec(name, spec.submodule_search_locations)
    is_source = spec is not None and spec.has_location and str(spec.origin).endswith(".py")
    return Path(str(spec.origin)) if spec is not None and is_source else None


def _spec(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    """As ``importlib.util.find_spec``, which would import the packages above the module."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, places) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None
