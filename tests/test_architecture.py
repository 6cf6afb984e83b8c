"""The house rules that a machine can hold: imports point one way, one option is one file."""

import ast
import subprocess
import sys

import twotower
from tests.conftest import ROOT
from twotower.retriever import load

PACKAGE = ROOT / "src" / "twotower"
BASE = {"types", "files", "wording"}  # open to every module, and they import no module of ours
MAY_IMPORT = {
    **dict.fromkeys(BASE, set()),
    "layers": {"layers", "sharding"},
    "metrics": {"metrics"},
    "retrieval": {"retrieval"},
    "data": {"data"},
    "models": {"layers", "sharding"},
    "losses": {"losses", "distributed"},
    "task": {"optimizers", "retrieval", "metrics", "sharding", "sharding_checkpoint"},
    "callbacks": {"checkpoint_io", "sharding"},
    "checkpoint_io": set(),
    "resume": {"loggers"},
    "diagnostics": {"retrieval", "diagnostics"},
    "loggers": set(),
    "distributed": set(),
    "sharding": {"distributed"},
    "sharding_checkpoint": {"sharding"},
    "optimizers": {"distributed", "sharding"},
    "wandb_logger": {"wandb_names"},
    "wandb_names": set(),
    "results": set(),
    "settings": set(),
    "ranks": {"results", "data"},
    "checkpoint_file": set(),
    "environment": set(),
    "construct": set(),
    "roles": {"cli"},
    "saved_config": {"cli", "roles"},
    "checkpoints": {"checkpoint_file", "saved_config", "settings"},
    "about": {"checkpoints", "saved_config", "settings"},
    "state_kinds": {"checkpoints"},
    "restoring_optimizer": {"checkpoints", "sharding", "state_kinds"},
    "restoring": {"checkpoints", "restoring_optimizer", "state_kinds"},
    "report": {"metrics", "results", "settings", "ranks", "report"},
    "cli": {"checkpoint_file", "environment"},
    "run": {
        "about",
        "cli",
        "checkpoints",
        "construct",
        "restoring",
        "saved_config",
        "data",
        "task",
        "callbacks",
        "checkpoint_io",
        "resume",
        "results",
        "settings",
        "ranks",
        "metrics",
        "models",
        "sharding",
        "wandb_logger",
    },
    "__init__": {"retriever"},
    "lookup": set(),
    "retriever": {"checkpoints", "cli", "data", "environment", "lookup", "retrieval", "run"},
    "recommend": {"checkpoints", "retriever", "saved_config"},
    "embedding_map": {"report", "retriever"},
    "sweep": set(),
    "sweep_tables": {"sweep"},
    "launch": {"cli", "checkpoints", "run", "results", "sweep"},
    "export": {"cli", "layers", "data", "retrieval", "checkpoints", "run", "results", "saved_config", "export"},
    "bare_loop": set(),
    "peers": set(),
    "benchmark": {"run", "results", "callbacks", "bare_loop", "peers"},
    "benchmark_data": {"run", "results", "benchmark", "data"},
    "benchmark_evaluation": {"run", "results", "benchmark", "benchmark_ranking", "metrics", "retrieval"},
    "benchmark_ranking": {"results", "benchmark", "metrics", "retrieval"},
    "benchmark_tables": {"run", "results", "benchmark"},
    "benchmark_sharding": {"run", "results", "benchmark_tables", "sharding"},
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
        assert "eval(" not in text.replace(".eval()", "") and "import pickle" not in text, path
        assert text.count("torch.load(") <= text.count("weights_only=True)"), path
