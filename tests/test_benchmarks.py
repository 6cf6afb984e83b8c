"""The benchmarks measure what they say: small runs of each."""

import json

import pytest

from tests.test_train import SMALL


def test_the_step_as_tables_grow(script):
    run = script(
        "benchmark_tables", "model=dat", "optimizer=rowwise_adagrad", "rows=[1000,3000]", "rounds=2", "steps=2", "output=o.json"
    )
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["ratio"]["1000"] == 1 and record["ratio"]["3000"] == record["step_ms"]["3000"] / record["step_ms"]["1000"]
    assert "DAT, RowwiseAdagrad, batch 256" in run.stdout and "3,000" in run.stdout


@pytest.mark.slow
def test_shards_take_half_the_memory(script):
    process = script.popen(
        *("benchmark_sharding", "model=mf", "optimizer=rowwise_adagrad", "optimizer.min_rows=1", "model.dim=4"),
        *("rows=1001", "rounds=2", "steps=2", "output=o.json"),
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    record = json.loads((script.folder / "o.json").read_text())
    whole, shard = record["none"], record["row"]
    assert whole["parameter_bytes"] == 2 * 1002 * 4 * 4 and shard["parameter_bytes"] == 2 * 501 * 4 * 4  # two tables with row 0
    assert whole["optimizer_bytes"] == 2 * (1002 + 1) * 4 and shard["optimizer_bytes"] == 2 * (501 + 1) * 4  # sums, and the step
    assert record["step_ratio"] == shard["step_ms"] / whole["step_ms"] and "MF, RowwiseAdagrad, batch 256" in out


def test_evaluation_gives_torchmetrics_values(script):
    run = script("benchmark_evaluation", *SMALL[:3], "model=two_tower", "rounds=1", "output=o.json")
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["values"]["ours"] == pytest.approx(record["values"]["torchmetrics"], abs=1e-6)
    assert 0 < record["values"]["ours"]["ndcg@10"] < 1 and record["users"] > 100
