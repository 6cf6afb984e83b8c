"""Fixtures for all tests: small data sets, and the scripts run in this process or another."""

import datetime
import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.helpers import composition
from twotower.data.datamodule import RetrievalDataModule
from twotower.data.download import download
from twotower.data.readers.synthetic import Synthetic
from twotower.data.splits import LeaveLastOut

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)  # as in the processes that the tests start: sums must round alike
download.RETRIES = 0  # tests without a network need not wait for one
composition.remember()
os.fsync = lambda file: None  # waits for the disk; no test cuts the power


EXTRAS = {  # optional packages that tests need, by folder or file
    "export": ("faiss", "onnx", "onnxruntime", "onnxscript", "pyarrow", "safetensors"),
    "test_wandb.py": ("wandb",),
}


class Skipped(pytest.Module):
    """A file whose packages are not installed."""

    def collect(self):
        pytest.skip(f"needs a package of an extra: {missing(self.path)}", allow_module_level=True)


def missing(path: Path) -> list[str]:
    """Packages that a test file needs and that are not installed."""
    needed = [name for part in path.relative_to(ROOT).parts for name in EXTRAS.get(part, ())]
    return [name for name in needed if importlib.util.find_spec(name) is None]


def pytest_pycollect_makemodule(module_path, parent):
    return Skipped.from_parent(parent, path=module_path) if missing(module_path) else None


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def make_data(cache_dir: Path, reader=None, **changes) -> RetrievalDataModule:
    """A data module, on a synthetic world of 60 users and 40 items unless a reader is given."""
    reader = reader or Synthetic(60, 40, 3, 6, 8, seed=1)
    settings = {
        "split": LeaveLastOut(1),
        "data_dir": str(cache_dir / "raw"),
        "cache_dir": str(cache_dir / "cache"),
        "batch_size": 16,
        "positives": "interactions",
        "eval_batch_size": 7,
        "min_value": None,
        "duplicates": "first",
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


def in_two_processes(worker: Callable[..., Any], rendezvous: Path) -> list[Any]:
    """The results of ``worker(rank)`` in two gloo processes, by rank.

    Args:
        worker: a function of a module, as the processes import it.
        rendezvous: a file that does not exist yet.

    Raises:
        ChildProcessError: if a process ends without a result.
    """
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_join, args=(worker, rank, f"file://{rendezvous}", queue))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    while len(results) < len(processes):
        if not queue.empty():
            rank, result = queue.get()
            results[rank] = result
        elif any(process.exitcode for process in processes):  # not None, not 0
            for process in processes:
                process.kill()
            raise ChildProcessError("a process ended without a result; its traceback is above")
        time.sleep(0.01)
    for process in processes:
        process.join()
    return [results[rank] for rank in range(2)]


def _join(worker, rank, rendezvous, queue):
    dist.init_process_group(
        "gloo",
        init_method=rendezvous,
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(minutes=30),
    )
    queue.put((rank, worker(rank)))
    dist.barrier()
    dist.destroy_process_group()


class Script:
    """Runs ``python src/<name>.py`` in this process or another, with all data in ``folder``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
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
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, name: str, *overrides: str) -> subprocess.CompletedProcess:
        """Run in this process, which has imported everything already."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with self.monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", [f"{name}.py", *overrides])
            for key, value in self.env.items():
                patch.setenv(key, value)
            try:
                runpy.run_path(str(ROOT / "src" / f"{name}.py"), run_name="__main__")
            except SystemExit as stop:
                code = stop.code
        return subprocess.CompletedProcess(overrides, code, out.getvalue(), err.getvalue())

    def metrics(self, run: str) -> dict:
        return json.loads((self.folder / run / "metrics.json").read_text())

    def weights(self, run: str, name: str = "last") -> dict:
        path = self.folder / run / "checkpoints" / f"{name}.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture
def script(tmp_path, monkeypatch):
    return Script(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def pair():
    from tests.helpers.pair import Pair

    pair = Pair()
    yield pair
    pair.end()
