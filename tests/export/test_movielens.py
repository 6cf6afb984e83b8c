"""A real run, taken away: the exported README's example beside PyTorch, on MovieLens-1M."""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.helpers.exporting import assert_same_lists, exact, serve
from twotower.run.build import rebuild
from twotower.run.checkpoint.checkpoints import load_checkpoint, own_config

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data")).absolute()
RUN = (
    "experiment=dat_movielens_1m",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
)


@pytest.mark.slow
@pytest.mark.data
def test_a_movielens_run_is_served_without_this_project(script):
    if not (REAL / "ml-1m").exists():
        pytest.skip(f"no ml-1m in {REAL}; set TWOTOWER_DATA_DIR")
    paths = {
        "data": REAL,
        "cache": script.folder / "cache",
        "output": script.folder / "outputs",
        "run": script.folder / "run",
    }
    where = [f"paths.{name}_dir={path}" for name, path in paths.items()]
    run = script("train", *RUN, "callbacks.diagnostics=null", "hydra.run.dir=run", *where)
    assert run.returncode == 0, run.stderr
    run = script("export", "ckpt_path=run/checkpoints/best.ckpt", "parity.num_users=10000", *where)
    assert run.returncode == 0, run.stderr
    folder = script.folder / "run" / "export"
    record = json.loads((folder / "manifest.json").read_text())
    assert record["parity"]["exact_hit_rate"] == pytest.approx(
        record["metrics"]["test"]["hit_rate@10"], abs=1e-12
    )
    assert record["parity"]["index"]["hit_rate"] == record["parity"]["exact_hit_rate"]
    check_against_torch(script.folder / "run" / "checkpoints" / "best.ckpt", folder, paths)


def check_against_torch(ckpt_path, folder, paths):
    checkpoint = load_checkpoint(ckpt_path)
    data, task = rebuild(
        own_config(
            checkpoint["twotower"], {f"{name}_dir": str(path) for name, path in paths.items()}
        ),
        checkpoint,
    )
    chosen = torch.randperm(data.meta["num_users"], generator=torch.Generator().manual_seed(0))[
        :100
    ].tolist()
    raw = data.ids["user"]["user"].to_list()
    items, scores = exact(task.model.eval(), data, 10)
    served = serve(folder, [raw[user] for user in chosen], 10)
    assert_same_lists(served, [items[user] for user in chosen], scores[chosen])
    same = [
        [item for item, _ in found] == items[user]
        for found, user in zip(served, chosen, strict=True)
    ]
    assert sum(same) >= 98  # two items may have nearly one score
