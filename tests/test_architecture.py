"""The house rules that a machine can hold: imports point one way, one option is one file."""

import ast
import subprocess
import sys

import pytest

import twotower
from tests.conftest import ROOT
from twotower.retriever import load

PACKAGE = ROOT / "src" / "twotower"
BASE = {"files", "terminal", "types", "wording"}  # open to every module, and they import no other module of ours
MAY_IMPORT = {
    **dict.fromkeys(BASE, set()),
    "terminal": {"wording"},
    "layers": {"layers", "sharding"},
    "metrics": {"metrics"},
    "retrieval": {"retrieval"},
    "data": {"data", "figures", "locks"},
    "models": {"layers", "sharding"},
    "losses": {"distributed", "losses"},
    "task": {"distributed", "metrics", "optimizers", "retrieval", "sharding", "sharding_checkpoint"},
    "callbacks": {"checkpoint_io", "sharding"},
    "diagnostics": {"diagnostics", "extras", "figures", "retrieval"},
    "loggers": {"records"},
    "distributed": set(),
    "sharding": {"distributed"},
    "sharding_checkpoint": {"sharding"},
    "optimizers": {"distributed", "sharding"},
    "wandb_logger": {"records", "wandb_names"},
    "wandb_names": {"settings"},
    "results": set(),
    "settings": set(),
    "ranks": {"data", "records", "results"},
    "checkpoint_file": set(),
    "environment": set(),
    "construct": set(),
    "roles": {"checks"},
    "saved_config": {"checks", "roles", "settings"},
    "checkpoints": {"checkpoint_file", "saved_config", "settings"},
    "about": {"checkpoints", "saved_config", "settings"},
    "state_kinds": {"checkpoints"},
    "restoring_optimizer": {"checkpoints", "sharding", "state_kinds"},
    "restoring": {"checkpoints", "restoring_optimizer", "state_kinds"},
    "report": {"extras", "figures", "metrics", "ranks", "records", "report", "settings"},
    "cli": {"checkpoint_file", "checks", "environment", "signals"},
    "run": {
        "about",
        "build",
        "callbacks",
        "checkpoint_io",
        "checkpoints",
        "checks",
        "data",
        "extras",
        "models",
        "ranks",
        "restoring",
        "results",
        "resume",
        "saved_config",
        "settings",
        "stopping",
        "task",
        "wandb_logger",
    },
    "__init__": {"retriever"},
    "lookup": {"data"},
    "retriever": {"build", "checkpoints", "checks", "data", "environment", "lookup", "retrieval"},
    "recommend": {"checkpoints", "retriever", "saved_config"},
    "embedding_map": {"figures", "report", "retriever"},
    "sweep": {"locks", "records", "settings"},
    "sweep_tables": {"sweep"},
    "launch": {"checkpoints", "cli", "results", "run", "signals", "sweep"},
    "export": {
        "build",
        "checkpoints",
        "checks",
        "data",
        "export",
        "figures",
        "layers",
        "locks",
        "records",
        "results",
        "retrieval",
        "saved_config",
    },
    "bare_loop": set(),
    "peers": set(),
    "benchmark": {"bare_loop", "build", "callbacks", "peers", "results"},
    "benchmark_data": {"benchmark", "build", "results"},
    "benchmark_evaluation": {"benchmark", "benchmark_ranking", "build", "metrics", "results", "retrieval"},
    "benchmark_ranking": {"benchmark", "metrics", "results", "retrieval"},
    "benchmark_tables": {"benchmark", "build", "results"},
    "benchmark_sharding": {"benchmark_tables", "build", "results", "sharding"},
    "figures": set(),
    "extras": set(),
    "records": set(),
    "signatures": set(),
    "foreign": {"signatures"},
    "roots": {"foreign", "signatures"},
    "checks": {"foreign", "roots", "signatures"},
    "processes": set(),
    "signals": set(),
    "locks": {"processes"},
    "stopping": {"callbacks", "processes", "signals"},
    "raw_ids": set(),
    "checkpoint_io": set(),
    "resume": {"loggers"},
    "build": {"checks", "construct", "metrics", "restoring", "saved_config", "sharding", "task"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("twotower"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]


def test_imports_point_one_way():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "__init__.py" and path.parent != PACKAGE:
            assert path.read_text() == "", f"{path} must be empty"
            continue
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for imported in imports(path):
            allowed = MAY_IMPORT[part] if part in BASE else MAY_IMPORT[part] | BASE
            assert imported in allowed, f"{path.relative_to(ROOT)} imports {imported}"


def test_the_package_offers_load_and_imports_nothing_before_it_is_asked_for():
    code = "import sys, twotower; assert not {'torch', 'polars', 'hydra'} & set(sys.modules); twotower.loda"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert "module 'twotower' has no attribute 'loda'" in run.stderr
    assert twotower.load is load


HEAVY = {"torch", "pytorch_lightning", "wandb", "polars", "matplotlib", "pyarrow"}


@pytest.mark.parametrize(
    "overrides", [["--help"], ["--cfg", "job"], ["loss.lamda3=0"], ["model=dta"], ["dry=true"]], ids=" ".join
)
def test_what_needs_no_training_imports_no_torch(overrides, tmp_path):
    """They take seconds to import, and a mistake in the command line should show at once."""
    code = f"""
import atexit, runpy, sys
sys.path.insert(0, {str(ROOT / "src")!r})
atexit.register(lambda: print("imported:", sorted({HEAVY} & set(sys.modules))))
runpy.run_path({str(ROOT / "src" / "train.py")!r}, run_name="__main__")
"""
    command = [sys.executable, "-c", code, *overrides]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.endswith("imported: []\n"), run.stdout + run.stderr


def test_files_stay_small():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_models_metrics_and_negatives_are_found_by_their_target_alone():
    """No registry: a file's name appears in no other module of the package's groups."""
    for group in ("models", "metrics"):
        for path in (PACKAGE / group).glob("*.py"):
            option = ROOT / "conf" / group.removesuffix("s") / f"{path.stem}.yaml"
            if option.exists():
                assert f"twotower.{group}.{path.stem}." in option.read_text()


def test_nothing_unpickles_or_evaluates():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "src").glob("*.py")]:
        text = path.read_text()
        assert "eval(" not in text.replace(".eval()", "").replace("ast.literal_eval(", "") and "import pickle" not in text, path
        assert text.count("torch.load(") <= text.count("weights_only=True)"), path
