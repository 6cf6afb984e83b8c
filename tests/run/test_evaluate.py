"""The evaluate command in one and in several processes."""

import json
import subprocess
import sys

import polars as pl
import pytest
import torch

from tests.conftest import ROOT, in_two_processes
from tests.helpers.runs import SMALL
from twotower.distributed import collectives
from twotower.export.card import half_widths
from twotower.metrics.hit_rate import HitRate
from twotower.training.task import RetrievalTask

# users and items that training has not seen; an odd number of users in batches of 8
NEWCOMERS = (
    *SMALL,
    "data/split=temporal",
    "data.split.min_history=0",
    "data.k_core=0",
    "data.reader.num_items=300",
    "data.eval_batch_size=8",
    "trainer.max_epochs=1",
    "hydra.run.dir=run",
)


def trained(script):
    run = script("train", *NEWCOMERS)
    assert run.returncode == 0, run.stderr


def figures(script, name):
    return json.loads((script.folder / name).read_text())["test"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])  # 1 is the default: the processes of torchrun count
def test_two_processes_give_the_result_of_one(devices, script, pair):
    trained(script)
    one = ("ckpt_path=run", "output=one.json", "ranks=one.parquet")
    alone = script("evaluate", *one)
    assert alone.returncode == 0, alone.stderr
    two = ("ckpt_path=run", "output=two.json", "ranks=two.parquet", f"trainer.devices={devices}")
    pair(script, "evaluate", *two)
    assert figures(script, "two.json") == pytest.approx(figures(script, "one.json"), rel=1e-12)
    assert figures(script, "one.json")["cold/hit_rate@10"] >= 0  # cold items are among the targets
    ranks = [script.folder / f"{name}.parquet" for name in ("one", "two")]
    assert ranks[0].read_bytes() == ranks[1].read_bytes()
    frame = pl.read_parquet(ranks[1])
    assert not frame.select("user", "item").is_duplicated().any()
    assert frame["user"].n_unique() % 2 == 1
    test = figures(script, "one.json")
    intervals = [half_widths(path, [HitRate(1, [10])], test) for path in ranks]
    assert intervals[0] == intervals[1] and intervals[0]["hit_rate@10"] > 0


@pytest.mark.slow
def test_torchrun_prints_and_writes_once(script):
    trained(script)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    run = subprocess.run(
        [*torchrun, str(ROOT / "src" / "evaluate.py"), "ckpt_path=run", "output=two.json"],
        cwd=script.folder,
        env=script.env,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("dat on synthetic") == 1
    assert figures(script, "two.json") == pytest.approx(script.metrics("run")["test"], rel=1e-12)


def test_ranks_are_written_as_by_the_training(script):
    trained(script)
    folder = script("evaluate", "ckpt_path=run", "output=run")
    assert folder.returncode == 1 and "output=run is a folder: name a file" in folder.stderr
    run = script("evaluate", "ckpt_path=run", "ranks=new/again.parquet", "output=as/new.json")
    assert run.returncode == 0, run.stderr
    own, again = (script.folder / name for name in ("run/test_ranks.parquet", "new/again.parquet"))
    assert figures(script, "as/new.json") == script.metrics("run")["test"]
    assert pl.read_parquet(own).equals(pl.read_parquet(again))
    other = script("evaluate", "ckpt_path=run", "ranks=val.parquet", "split=val")
    assert other.returncode == 1 and "ranks=val.parquet is of the test" in other.stderr
    assert not (script.folder / "val.parquet").exists()


@pytest.mark.parametrize("given", [(), ("ranks=kept.parquet",)])
def test_ranks_are_kept_only_for_a_file(given, script, monkeypatch):
    trained(script)
    counts, end = [], RetrievalTask.on_test_epoch_end
    monkeypatch.setattr(
        RetrievalTask,
        "on_test_epoch_end",
        lambda task: (counts.append(len(task._ranks)), end(task)),
    )
    run = script("evaluate", "ckpt_path=run", *given)
    assert run.returncode == 0, run.stderr
    assert (counts[0] > 0) == bool(given)


def gathered(rank):
    """Seven and three rows, two at a time; the first process has none in the second call."""
    collectives.BLOCK = 2
    own = torch.arange(14).view(7, 2) if rank == 0 else 100 + torch.arange(6).view(3, 2)
    counts = [collectives.gather_to_first(rows).tolist() for rows in (own, own[: 3 * rank])]
    return [*counts, collectives.gather_to_first(own[:0]).tolist()]


def test_rows_of_all_processes_come_to_the_first(tmp_path):
    found = in_two_processes(gathered, tmp_path / "rendezvous")
    first, second = torch.arange(14).view(7, 2).tolist(), [[100, 101], [102, 103], [104, 105]]
    assert found == [[first + second, second, []], [[], [], []]]
