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


def test_evaluation_gives_torchmetrics_values(script):
    run = script("benchmark_evaluation", *SMALL[:3], "model=two_tower", "rounds=1", "output=o.json")
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["values"]["ours"] == pytest.approx(record["values"]["torchmetrics"], abs=1e-6)
    assert 0 < record["values"]["ours"]["ndcg@10"] < 1 and record["users"] > 100
