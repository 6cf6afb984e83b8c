"""Shared parts of the tests: small worlds, and the scripts run as their users run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.synthetic import Synthetic

ROOT = Path(__file__).parents[1]


def make_data(cache_dir: Path, reader=None, **changes) -> RetrievalDataModule:
    """A data module, on a synthetic world of 60 users and 40 items unless a reader is given."""
    reader = reader or Synthetic(60, 40, 3, 6, 8, seed=1)
    settings = {
        "data_dir": str(cache_dir / "raw"),
        "cache_dir": str(cache_dir / "cache"),
        "batch_size": 16,
        "eval_batch_size": 7,
        "min_value": None,
        "k_core": 0,
        "history_length": 4,
        "group_shares": [0.5, 0.8],
        "mask_seen": True,
        "seed": 3,
    }
    return RetrievalDataModule(reader, **{**settings, **changes})


@pytest.fixture
def data(tmp_path):
    module = make_data(tmp_path)
    module.setup()
    return module


class Script:
    """Runs ``python src/<name>.py`` in a process of its own, outputs below a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "TWOTOWER_DATA_DIR": str(folder / "data"),
            "TWOTOWER_CACHE_DIR": str(folder / "cache"),
            "TWOTOWER_OUTPUT_DIR": str(folder / "outputs"),
            "WANDB_MODE": "offline",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def popen(self, name: str, *overrides: str) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "src" / f"{name}.py"), *overrides]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, name: str, *overrides: str) -> subprocess.CompletedProcess:
        process = self.popen(name, *overrides)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(overrides, process.returncode, out, err)

    def metrics(self, run: str) -> dict:
        return json.loads((self.folder / run / "metrics.json").read_text())

    def weights(self, run: str, name: str = "last") -> dict:
        path = self.folder / run / "checkpoints" / f"{name}.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)
