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


@pytest.mark.slow
def test_windows_beside_memory(script):
    sizes = ("sizes=[3000,6000]", "num_items=50", "rounds=2", "steps=2")
    run = script("benchmark_data", *sizes, "data.batch_size=64", "data.shuffle_window=640", "output=o.json")
    assert run.returncode == 0, run.stderr
    found = json.loads((script.folder / "o.json").read_text())["sizes"]
    for mode in ("memory", "windows"):
        assert all(own[mode]["train_per_second"] > 0 for own in found.values())
        assert found["6000"][mode]["anonymous"] <= found["6000"][mode]["resident"]
    growth = {mode: found["6000"][mode]["growing"] - found["3000"][mode]["growing"] for mode in ("memory", "windows")}
    # 100 users more: (32 x 4 + 4) bytes of vector and state and 4 of ids each; in memory also 3,000 users and items, 2,800
    # positions and their order of 8 bytes, and of each user an offset of 8 and six numbers of 4 bytes
    assert growth["windows"] == 100 * (4 * 32 + 4 + 4)
    assert growth["memory"] - growth["windows"] == 3000 * 8 + 2800 * 12 + 100 * 32
    assert "beside memory" in run.stdout


def test_ranking_of_random_vectors_and_its_forecast(script):
    run = script("benchmark_evaluation", "users=50", "items=3000", "data.eval_batch_size=10", "output=o.json")
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["users_per_second"] == 50 / record["seconds"] and record["forecast_seconds"] > 0
    assert record["extrapolated_seconds"]["300000"] == 6000 * record["seconds"]
    # 3,000 vectors of 32 floats, and of 10 users scores and comparisons of each, less than the vectors once more
    assert record["forecast_bytes"] == 2 * 3000 * 32 * 4 and 10 * 3000 * (4 + 5) < 3000 * 32 * 4
    assert "extrapolated to 300,000 users" in run.stdout
