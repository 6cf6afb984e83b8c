"""Classes of the user's own package: found, checked, and trusted only where the user asks."""

import sys
import textwrap

import pytest

from tests.helpers.crafted import REFUSED, crafted
from tests.helpers.saved import Saved
from twotower.errors import UserError
from twotower.run.build import construct
from twotower.run.checkpoint.checkpoints import load_checkpoint
from twotower.run.checkpoint.trusted import UntrustedError, trusted_packages
from twotower.run.checks.checks import check_types
from twotower.run.checks.own_code import is_installed, source_of

PACKAGE = {
    "__init__.py": "",
    "models.py": """
        import os
        from dataclasses import dataclass
        from torch import nn
        from twotower.models.mf import MF
        from twotower.models.two_tower import TwoTower

        class Mine(TwoTower):
            pass

        class Typed:
            def __init__(
                self, dim: int, names: "list[str]", scale: float = None, *, kind: "Odd" = 1
            ):
                pass

        class Open:
            def __init__(self, **settings):
                pass

        @dataclass
        class Data:
            dim: int

        def make(dim: int):
            return dim
    """,
    "broken.py": "def",
    "needs.py": "import no_such_package",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return Saved(tmp_path_factory.mktemp("run"))


@pytest.fixture
def mylab(tmp_path, monkeypatch):
    """The packages ``mylab`` and ``mylabevil``, on the path and not imported."""
    for name in ("mylab", "mylabevil"):
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        for file, text in PACKAGE.items():
            (folder / file).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield "mylab"
    for name in [name for name in sys.modules if name.startswith("mylab")]:
        del sys.modules[name]


def test_a_prefix_is_a_whole_name(monkeypatch):
    assert trusted_packages(["mylab.", "other.sub"]) == ("mylab.", "other.sub.")
    assert trusted_packages("mylab") == ("mylab.",) and trusted_packages([]) == ()
    monkeypatch.delenv("TWOTOWER_TRUSTED", raising=False)
    assert trusted_packages(None) == ()
    monkeypatch.setenv("TWOTOWER_TRUSTED", "mylab., other.sub.")
    assert trusted_packages(None) == ("mylab.", "other.sub.")
    assert trusted_packages([]) == ()  # the command line comes first


@pytest.mark.parametrize(
    "name", ["", " ", "*", ".", "mylab.*", "mylab..x", "a b", "../mylab", None]
)
def test_only_packages_are_trusted(name):
    with pytest.raises(UserError, match="trusted has .*, which is not a package"):
        trusted_packages([name])


def test_the_environment_trusts_packages_only(monkeypatch):
    monkeypatch.setenv("TWOTOWER_TRUSTED", "mylab.,")
    with pytest.raises(UserError, match="TWOTOWER_TRUSTED has ''"):
        trusted_packages(None)


def test_an_own_class_needs_trust(saved, mylab):
    path = crafted(saved, "model._target_", "mylab.models.Mine")
    with pytest.raises(
        UntrustedError, match=r"give trusted=\[mylab\.\], or TWOTOWER_TRUSTED=mylab\.$"
    ):
        load_checkpoint(path)
    assert "mylab.models" not in sys.modules
    for other in ("mylabevil.", "mylab.losses.", "my."):
        with pytest.raises(UntrustedError):
            load_checkpoint(path, trusted=[other])
    checkpoint = load_checkpoint(path, trusted=["mylab."])
    assert checkpoint["twotower"].config["model"]["_target_"] == "mylab.models.Mine"


@pytest.mark.parametrize(
    "target",
    [
        "mylab.models.os.system",  # not defined there
        "mylab.models.os.path.join",
        "mylab.models.nn.Module",
        "mylab.models.MF",
        "mylab.models.Missing",
        "mylab.models.__loader__",
        "mylab.models.__builtins__",
        "mylab.models",
        "mylab..models.Mine",
        "mylab.models.Mine ",
        "mylab.models.Typed.__init__",
        "mylabevil.models.Mine",
        "mylab.broken.Mine",
        "mylab.needs.Mine",
    ],
)
def test_trust_is_for_what_the_package_defines(saved, mylab, target):
    path = crafted(saved, "model._target_", target)
    with pytest.raises(UserError) as error:
        load_checkpoint(path, trusted=["mylab."])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", REFUSED)
def test_trust_allows_nothing_else(saved, mylab, key):
    with pytest.raises(UserError):
        load_checkpoint(crafted(saved, key, REFUSED[key]), trusted=["mylab."])


def test_a_checkpoint_cannot_set_trust(saved, mylab):
    checkpoint = saved.good()
    about = checkpoint["twotower"]
    about["trusted"] = about["config"]["trusted"] = ["mylab."]
    about["overrides"].append("trusted=[mylab.]")
    about["config"]["model"]["_target_"] = "mylab.models.Mine"
    with pytest.raises(UntrustedError):
        load_checkpoint(saved.write(checkpoint))


def test_a_missing_package_is_named(saved):
    path = crafted(saved, "model._target_", "nowhere.models.Mine")
    with pytest.raises(UserError, match="No module named 'nowhere': set PYTHONPATH"):
        load_checkpoint(path, trusted=["nowhere."])
    with pytest.raises(
        UserError, match=r"model\._target_=nowhere\.M: there is no package nowhere: set"
    ):
        check_types("model", {"_target_": "nowhere.M"})
    with pytest.raises(UserError, match="cannot be imported: .*: set PYTHONPATH"):
        construct("model", {"_target_": "nowhere.M"})


def test_sources_are_found_without_an_import(mylab):
    assert is_installed("mylab.models") and not is_installed("nowhere.models")
    assert source_of("mylab.models").name == "models.py"
    assert source_of("mylab").name == "__init__.py"
    for module in ("mylab.nothing", "nowhere.models", "mylab.models.Mine", "sys"):
        assert source_of(module) is None
    assert "mylab" not in sys.modules


@pytest.mark.parametrize(
    ("node", "wrong"),
    [
        (
            {
                "_target_": "mylab.models.Typed",
                "dim": 2,
                "names": ["a"],
                "scale": None,
                "kind": "x",
            },
            None,
        ),
        ({"_target_": "mylab.models.Typed", "dim": 2, "names": "a", "kind": {"a": 1}}, None),
        ({"_target_": "mylab.models.Typed", "dim": "x", "names": []}, r"model\.dim must be"),
        ({"_target_": "mylab.models.Typed", "dim": 2}, r"model\.names is missing"),
        ({"_target_": "mylab.models.Typed", "dim": 2, "names": [], "dimm": 1}, "did you mean dim"),
        ({"_target_": "mylab.models.make", "dim": 2, "more": 1}, r"unknown setting model\.more"),
        ({"_target_": "mylab.models.Mine", "dimm": 2}, r"unknown setting model\.dimm"),  # inherited
        ({"_target_": "mylab.models.Open", "anything": 1}, None),
        ({"_target_": "mylab.models.Data", "dim": 1}, None),
        ({"_target_": "mylab.models.Missing", "x": 1}, None),  # construction will say it
        ({"_target_": "mylab.broken.Mine", "x": 1}, None),
    ],
)
def test_settings_are_compared_with_the_source(mylab, node, wrong):
    if wrong is None:
        check_types("model", node)
    else:
        with pytest.raises(UserError, match=wrong):
            check_types("model", node)
    assert "mylab" not in sys.modules
