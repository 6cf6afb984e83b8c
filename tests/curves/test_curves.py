"""Golden curves: losses of 30 float64 steps and final metrics, as JSON files in this folder.

They guard every change that should not move numbers. A change that should says so in its commit
and renews them: ``.venv/bin/python -m tests.curves.test_curves``.
"""

import csv
import json
import math
import tempfile
from pathlib import Path

import pytest

from tests.conftest import Script

FOLDER = Path(__file__).parent
COMMON = (
    "data.reader.num_users=150",
    "data.reader.num_items=80",
    "data.reader.interactions_per_user=10",
    "data.batch_size=64",
    "trainer.precision=64-true",
    "trainer.max_epochs=10",
    "trainer.max_steps=30",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "callbacks.early_stopping.patience=3",
    "callbacks.progress=null",
    "callbacks.diagnostics=null",
    "hydra.run.dir=run",
)
CURVES = {
    "dat": (
        "model=dat",
        "model.hidden_dims=[256,128]",
        "loss.task.temperature=0.07",
        "model.dropout=0.1",
    ),
    "two_tower": (
        "model=two_tower",
        "model.hidden_dims=[256,128]",
        "loss.task.temperature=0.07",
        "model/history=transformer",
    ),
    "mf": ("model=mf", "loss/task=bpr"),
}


def curve(script: Script, settings: tuple[str, ...]) -> dict[str, dict[str, float | list[float]]]:
    """Every logged loss term, a value per step, and the final metrics."""
    run = script("train", *COMMON, *settings)
    assert run.returncode == 0, run.stderr
    losses: dict[str, list[float]] = {}
    with (script.folder / "run" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name.startswith("train/") and value:
                    losses.setdefault(name, []).append(float(value))
    record = script.metrics("run")
    return {
        "losses": losses,
        "val": record["val"],
        "test": record["test"],
        "oracle": record["oracle"],
    }


@pytest.mark.parametrize("name", CURVES)
def test_a_run_equals_its_golden_curve(script: Script, name: str) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    found = curve(script, CURVES[name])
    assert len(found["losses"]["train/loss"]) == 30
    for part, values in expected.items():
        assert found[part].keys() == values.keys(), part
        for key, value in values.items():
            here = found[part][key]
            pairs = zip(here, value, strict=True) if isinstance(value, list) else [(here, value)]
            assert all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in pairs), (
                part,
                key,
            )


def renew() -> None:
    """Write the curves of the code as it is."""
    for name, settings in CURVES.items():
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            found = curve(Script(Path(folder), patch), settings)
            (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    renew()
