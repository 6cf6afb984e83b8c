"""The generator of the made-up shop, which is a script and no module."""

import importlib.util
from types import ModuleType

from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "shop"


def make_shop() -> ModuleType:
    """``examples/shop/make_shop.py``."""
    spec = importlib.util.spec_from_file_location("make_shop", FOLDER / "make_shop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
