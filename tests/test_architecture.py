"""Rules for the structure of the code: imports point one way, one option is one file."""

import ast
import graphlib
import subprocess
import sys

import pytest

import twotower
from tests.conftest import ROOT
from twotower.serve.load import load

PACKAGE = ROOT / "src" / "twotower"
FLOORS = (  # a part imports from its own floor and from those below it
    {"errors", "files", "locks", "plotting", "processes", "signals", "types", "wording"},
    {"distributed", "layers", "losses", "metrics", "models", "optimizers", "retrieval"},
    {"data"},
    {"training"},
    {"run", "__main__"},
    {"export", "report", "serve", "sweep"},
)
NAMING = {
    "",
    "layers.history",
}  # their __init__ has the names that users import; all others are empty
APART = FLOORS[-1]  # these never import one another


def imports(path):
    """Modules of the package that a file imports, each as its dotted name without ``twotower``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("twotower"):
            continue
        for alias in node.names:
            inner = [*node.module.split(".")[1:], alias.name]
            is_module = PACKAGE.joinpath(*inner).with_suffix(".py").exists()
            yield ".".join(inner if is_module else inner[:-1])


def floor_of(part):
    (floor,) = [number for number, parts in enumerate(FLOORS) if part in parts]
    return floor


def test_imports_point_down():
    graph = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if path.name == "__init__.py":
            module = ".".join(path.relative_to(PACKAGE).parent.parts)
            assert module in NAMING or path.read_text() == "", f"{path} must be empty"
            if not module:
                continue
        graph[module] = set(imports(path))
        part = module.split(".")[0]
        for imported in graph[module]:
            other = imported.split(".")[0]
            assert floor_of(other) <= floor_of(part), (
                f"{module} imports {imported}, which is above it"
            )
            assert other == part or part not in APART or other not in APART, (
                f"{module} imports {imported}"
            )
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_root_stays_small():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", *FLOORS[0]}


def test_the_package_has_load_and_imports_it_on_first_use():
    code = """
import sys, twotower
assert not {"torch", "polars", "hydra"} & set(sys.modules)
twotower.loda
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert "module 'twotower' has no attribute 'loda'" in run.stderr
    assert twotower.load is load


HEAVY = {"torch", "pytorch_lightning", "wandb", "polars", "matplotlib", "pyarrow"}


@pytest.mark.parametrize(
    "command",
    [
        ["train", "loss.lamda3=0"],
        ["train", "dry=true"],
        ["report", "list", "runs=."],
        *(
            pytest.param(["train", *given], marks=pytest.mark.slow)
            for given in (["--help"], ["--cfg", "job"], ["model=dta"])
        ),
    ],
    ids=" ".join,
)
def test_commands_without_training_import_no_torch(command, tmp_path):
    """Imports take seconds, and a mistake on the command line should show at once."""
    name, *overrides = command
    code = f"""
import atexit, runpy, sys
sys.path.insert(0, {str(ROOT / "src")!r})
atexit.register(lambda: print("imported:", sorted({HEAVY} & set(sys.modules))))
runpy.run_path({str(ROOT / "src" / f"{name}.py")!r}, run_name="__main__")
"""
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    run = subprocess.run(
        [sys.executable, "-c", code, *overrides], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.stdout.endswith("imported: []\n"), run.stdout + run.stderr


def test_files_stay_small():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_models_and_metrics_are_named_only_in_their_options():
    """The YAML of an option names its module; there is no registry."""
    for group in ("models", "metrics"):
        for path in (PACKAGE / group).glob("*.py"):
            option = ROOT / "conf" / group.removesuffix("s") / f"{path.stem}.yaml"
            if option.exists():
                assert f"twotower.{group}.{path.stem}." in option.read_text()


def test_nothing_unpickles_or_evaluates():
    for path in [
        *PACKAGE.rglob("*.py"),
        *(ROOT / "src").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        text = path.read_text()
        assert (
            "eval(" not in text.replace(".eval()", "").replace("ast.literal_eval(", "")
            and "import pickle" not in text
        ), path
        assert text.count("torch.load(") <= text.count("weights_only=True)"), path


def test_no_test_imports_another():
    """Code for several test files is in tests/helpers, or in a helper beside them."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not any(name.startswith("test_") for name in names), (
                    f"{path} imports {node.module}"
                )
