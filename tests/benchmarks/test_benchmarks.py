"""Small runs of each benchmark."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from benchmarks import fused, memory
from benchmarks.bare_loop import BareLoop
from benchmarks.peers import processes
from tests.conftest import ROOT
from tests.helpers.runs import SMALL
from twotower.run.build import build, seed_everything


def test_the_step_as_tables_grow(script):
    run = script(
        "benchmark",
        "benchmark=tables",
        "model=dat",
        "optimizer=rowwise_adagrad",
        "rows=[1000,3000]",
        "rounds=2",
        "steps=2",
        "output=o.json",
    )
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert (
        record["ratio"]["1000"] == 1
        and record["ratio"]["3000"] == record["step_ms"]["3000"] / record["step_ms"]["1000"]
    )
    assert "DAT, RowwiseAdagrad, batch 256" in run.stdout and "3,000" in run.stdout


@pytest.mark.slow
def test_shards_take_half_the_memory(script):
    tables = ("model=mf", "model.dim=4", "optimizer=rowwise_adagrad", "optimizer.min_rows=1")
    sizes = ("rows=1001", "rounds=2", "steps=2", "output=o.json")
    run = script("benchmark", "benchmark=sharding", *tables, *sizes)
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    whole, shard = record["none"], record["row"]
    assert (
        whole["parameter_bytes"] == 2 * 1002 * 4 * 4 and shard["parameter_bytes"] == 2 * 501 * 4 * 4
    )  # two tables with row 0
    assert (
        whole["optimizer_bytes"] == 2 * (1002 + 1) * 4
        and shard["optimizer_bytes"] == 2 * (501 + 1) * 4
    )  # sums, and the step
    assert (
        record["step_ratio"] == shard["step_ms"] / whole["step_ms"]
        and "MF, RowwiseAdagrad, batch 256" in run.stdout
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="TorchRec: make torchrec")
def test_torchrec_has_the_memory_and_the_losses_of_rows(script):
    model = ("model=mf", "model.dim=8", "optimizer=rowwise_adagrad", "optimizer.min_rows=1")
    sizes = ("rows=1001", "items=2001", "rounds=1", "steps=5", "output=o.json")
    chosen = ("shardings=[row,torchrec]", "model.item_bias=false")
    run = script("benchmark", "benchmark=sharding", *model, *sizes, *chosen)
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["row"]["parameter_bytes"] == (501 + 1001) * 8 * 4  # with row 0
    for name in ("parameter_bytes", "optimizer_bytes"):
        assert record["torchrec"][name] == record["row"][name]
    losses = record["row"]["losses"]
    assert record["loss_difference"] < 1e-6 and len(set(losses)) == 5


def test_evaluation_gives_torchmetrics_values(script):
    run = script(
        "benchmark",
        "benchmark=evaluation",
        *SMALL[:3],
        "model=two_tower",
        "rounds=1",
        "output=o.json",
    )
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["values"]["ours"] == pytest.approx(record["values"]["torchmetrics"], abs=1e-6)
    assert 0 < record["values"]["ours"]["ndcg@10"] < 1 and record["users"] > 100


@pytest.fixture
def parts(tmp_path):
    def parts_of(*overrides):
        """Data module, task and settings."""
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("benchmark", [*SMALL[:4], f"paths.cache_dir={tmp_path}", *overrides])
        with open_dict(config):
            for key in ("rounds", "steps", "output", "compiled", "benchmark", "peers"):
                del config[key]
        seed_everything(0)
        return *build(config), config

    return parts_of


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize(
    "overrides",
    [
        (
            "model=dat",
            "loss/task=bce",
            "loss.task.temperature=0.2",
            "loss.lambda1=0.3",
            "loss.lambda2=0.2",
            "loss.reduction=pairs",
        ),
        (
            "model=dat",
            "loss/task=in_batch_softmax",
            "loss.lambda1=0",
            "loss.lambda2=0.2",
            "loss.lambda3=50",
            "loss.reduction=pairs",
        ),
        (
            "model=two_tower",
            "loss/task=in_batch_softmax",
            "loss.task.correct_log_q=false",
            "model.user_features=[history]",
        ),
    ],
)
def test_the_bare_loop_has_the_same_loss(parts, overrides, distinct):
    data, task, config = parts(*overrides)
    bare = BareLoop(data, config, distinct, torch.device("cpu"))
    model = task.model
    for side in ("user", "item"):
        ours = list(getattr(model, f"{side}_embedding").parameters())
        if config.model._target_.endswith("DAT"):
            ours += list(getattr(model, f"{side}_augmented").parameters())
        ours += list(getattr(model, f"{side}_tower").parameters())
        theirs = [
            parameter
            for name, part in bare.parts.items()
            if side in name.split()
            for parameter in part.parameters()
        ]
        assert [p.shape for p in ours] == [p.shape for p in theirs]
        for mine, yours in zip(ours, theirs, strict=True):
            yours.data.copy_(mine.data)
    index = next(iter(data.train_dataloader()))
    expected = task.step(data.train_batch(index)).total.item()
    torch.manual_seed(index.seed)
    assert bare.step(index.position).item() == pytest.approx(expected, rel=1e-5)


PEER = """
import json, sys
settings = json.load(open(sys.argv[1]))
import numpy
pairs = numpy.load(settings["pairs"])
assert pairs["user"].max() < settings["num_users"] and pairs["item"].max() < settings["num_items"]
open("log", "w")
for _ in sys.stdin:
    print("noise of a library")
    print("seconds", settings["batch_size"] * settings["steps"] / 1000, flush=True)
"""
IDS = ("data.history_length=0", "model.user_features=[user_id]", "model.item_features=[item_id]")
STEPS = ("rounds=1", "steps=2", *SMALL[:4], "model=two_tower", "loss/task=in_batch_softmax")


def test_the_step_beside_loops_and_peers(script, monkeypatch, tmp_path, parts):
    (tmp_path / "with_fake.py").write_text(PEER)
    monkeypatch.setattr(processes, "SCRIPTS", tmp_path)
    data, _, config = parts(*STEPS[6:], *IDS)
    with processes.started(
        {"fake": sys.executable, "absent": "/no/python"}, data, config, steps=2
    ) as found:
        assert list(found) == ["fake"] and found["fake"]() == 0.128
    # a peer's working folder is temporary, and so are the files that it writes there
    assert not (Path.cwd() / "log").exists()


def test_a_peer_that_fails_is_named(script):
    run = script("benchmark", *STEPS, *IDS, "benchmark=peers", f"peers.keras_rs={sys.executable}")
    assert (
        run.returncode == 1
        and "the peer keras_rs has failed: ModuleNotFoundError" in run.stderr
        and "Traceback" not in run.stderr
    )


def test_the_parts_of_a_step_make_the_whole(script):
    run = script("benchmark", *STEPS, "output=o.json")
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert sum(record["parts_ms"].values()) == pytest.approx(record["step_ms"]["framework"])
    assert list(record["parts_ms"]) == [
        "feeding",
        "gather",
        "forward",
        "backward",
        "optimizer",
        "framework",
    ]
    assert record["positives_per_second"]["framework"] == pytest.approx(
        64_000 / record["step_ms"]["framework"]
    )
    assert len(record["step_ms"]) == 3 and "every row" in run.stdout.replace("\n", " ")


def test_models_that_the_bare_loop_does_not_know_are_refused(script):
    run = script("benchmark", *STEPS, "model=mind")
    assert run.returncode == 1 and "use model=dat or two_tower" in run.stderr
    run = script("benchmark", *STEPS, "model.dropout=0.5")
    assert (
        run.returncode == 1
        and "model.dropout=0.5: the bare loop needs model.dropout=0" in run.stderr
    )


SMALL_WINDOWS = ("data.batch_size=64", "data.shuffle_window=640")


@pytest.mark.slow
def test_windows_beside_memory(script):
    sizes = ("sizes=[3000]", "num_items=50", "rounds=1", "steps=2", *SMALL_WINDOWS)
    run = script("benchmark", "benchmark=memory", *sizes, "output=o.json")
    assert run.returncode == 0, run.stderr
    found = json.loads((script.folder / "o.json").read_text())["sizes"]["3000"]
    for own in found.values():
        assert own["train_per_second"] > 0 and own["anonymous"] <= own["resident"]
        assert own["expected"] == own["anonymous"]  # the formula starts from the smallest size
    assert "beside memory" in run.stdout


@pytest.mark.slow
def test_preparation_by_both_engines(script):
    pytest.importorskip("duckdb")
    run = script("benchmark", "benchmark=preparation", "sizes=[4000]", "output=o.json")
    assert run.returncode == 0, run.stderr
    found = json.loads((script.folder / "o.json").read_text())["sizes"]["4000"]
    assert found.keys() == {"polars", "duckdb"}
    for own in found.values():
        assert 0 < own["interactions"] <= 4000 and own["seconds"] > 0
        assert own["anonymous"] <= own["resident"]


def test_the_memory_that_grows_with_the_data(tmp_path):
    """100 more users add 100 vectors of 32 numbers, 100 optimizer states and 100 ids."""
    paths = (f"paths.cache_dir={tmp_path}", f"paths.run_dir={tmp_path}")
    given = ["benchmark=memory", *SMALL_WINDOWS, *paths]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("benchmark", given)
    with open_dict(config):
        for key in ("rounds", "steps", "output", "benchmark", "sizes", "num_items"):
            del config[key]
    found = {}
    for size in (3000, 6000):
        data, task = build(memory.with_random_clicks(config, size, num_items=50))
        for mode in memory.MODES:
            found[size, mode] = memory.growing_bytes(data, task.model, mode)
    grown = {mode: found[6000, mode] - found[3000, mode] for mode in memory.MODES}
    assert grown["windows"] == 100 * (4 * 32 + 4 + 4)
    # in memory also 3,000 users and items, 2,800 positions and their order of 8 bytes, and of
    # each user an offset of 8 bytes and six numbers of 4 bytes
    assert grown["memory"] - grown["windows"] == 3000 * 8 + 2800 * 12 + 100 * 32


def test_sequences_beside_single_rows(script):
    small = ("rounds=2", "steps=2", "data.batch_size=64", "data.reader.num_users=100")
    settings = ("model=two_tower", "model/history=transformer", "data.history_length=12")
    run = script("benchmark", "benchmark=sequences", *settings, *small, "output=o.json")
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert set(record["positions_per_second"]) == {"interactions", "sequences"}
    assert len(record["ratios"]) == 2 and "histories of 12" in run.stdout


def test_ranking_of_random_vectors(script):
    run = script(
        "benchmark",
        "benchmark=ranking",
        "users=50",
        "items=3000",
        "data.eval_batch_size=10",
        "output=o.json",
    )
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    assert record["users_per_second"] == 50 / record["seconds"]
    assert record["extrapolated_seconds"] == 6000 * record["seconds"]
    assert "extrapolated to 300,000 users" in run.stdout


@pytest.mark.slow
def test_the_memory_of_a_catalogue(script):
    pytest.importorskip("faiss")
    small = ("num_items=3000", "users=20", "num_queries=5", "model.dim=16", "output=o.json")
    run = script("benchmark", "benchmark=catalogue", *small)
    assert run.returncode == 0, run.stderr
    none, ivf_pq, *ranking = json.loads((script.folder / "o.json").read_text())["rows"]
    assert none["recall"] == 1.0 > ivf_pq["recall"] > 0 == none["index_bytes"]
    assert "of 3,000 items" in ivf_pq["plan"] and ivf_pq["index_bytes"] > 3000 * (4 + 8)
    assert [row["what"][:10] for row in ranking] == ["ranking, 1", "ranking, 2"]
    for row in (none, ivf_pq, *ranking):
        assert 50 << 20 < row["anonymous"] < row["resident"]
    assert none["anonymous"] >= max(stage["anonymous"] for stage in none["stages"].values())
    assert "export, index=ivf_pq" in run.stdout


def test_the_latency_of_an_index_is_printed_with_its_recall(script):
    pytest.importorskip("faiss")
    small = ("num_items=2000", "dim=8", "num_queries=5", "k=10", "output=figures.json")
    run = script("benchmark", "benchmark=index", *small)
    assert run.returncode == 0, run.stderr
    flat, *hnsw = json.loads((script.folder / "figures.json").read_text())["rows"]
    assert (
        flat["recall"] == 1.0
        and [row["value"] for row in hnsw] == [100, 200, 400, 800]
        and hnsw[-1]["recall"] > 0.9
    )


NAMES = sorted(path.stem for path in (ROOT / "conf" / "benchmark").glob("*.yaml"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("benchmark=tabels",), "benchmark=tabels: no such option (did you mean tables?)"),
        (("rownds=3",), "unknown setting rownds (did you mean rounds?)"),
        (("benchmark=step", "+sed=1"), "unknown setting sed (did you mean seed?)"),
        *(((f"benchmark={name}", "+clicks=1"), "unknown setting clicks") for name in NAMES),
        (("benchmark=tables", "+users=5"), "unknown setting users"),
        (("benchmark=ranking", "rounds=2"), "unknown setting rounds"),
        (("rounds=0",), "rounds must be greater than or equal to 1, got 0"),
        (("benchmark=index", "indexes.hnsw.n=3"), "unknown setting indexes.hnsw.n"),
        (("dry=true",), "dry=true is for the train command alone"),
    ],
    ids=str,
)
def test_settings_are_checked_as_in_other_commands(script, settings, line):
    run = script("benchmark", *settings)
    assert run.returncode == 1 and line in run.stderr and "Traceback" not in run.stderr, run.stderr


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "negatives.exclude_positives=true",
            "the bare loop needs negatives.exclude_positives=False",
        ),
        ("optimizer=lazy_adam", "the bare loop needs optimizer._target_=torch.optim.AdamW"),
        ("benchmark=peers", "peers only have ids"),
    ],
)
def test_unequal_work_is_refused(script, setting, line):
    run = script("benchmark", *STEPS, setting)
    assert run.returncode == 1 and line in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("model", [("model=dat", "loss.lambda3=0"), ("model=mf",)])
def test_runs_in_one_pass_beside_plain_ones(script, model):
    small = ("num_runs=[3,6]", "rounds=1", "steps=2", "kernels=true", "output=o.json")
    run = script("benchmark", "benchmark=fused", *SMALL, *model, *small)
    assert run.returncode == 0, run.stderr
    record = json.loads((script.folder / "o.json").read_text())
    step_ms, runs = record["step_ms"], record["runs"]
    assert list(step_ms) == ["plain loop", "trainer.fit", "1", "3", "6"]
    assert [own["num_seeds"] for own in runs.values()] == [1, 3, 3]
    assert runs["6"]["run_ms"] == pytest.approx(step_ms["6"] / 6)
    assert runs["6"]["times_one"] == [pytest.approx(step_ms["6"] / step_ms["1"])]
    gain = 6 * step_ms["trainer.fit"] / step_ms["6"]
    assert runs["6"]["gain"] == [pytest.approx(gain)] and f"{gain:.2f} (" in run.stdout
    assert sum(count for count, _ in runs["6"]["kernels"].values()) > 50
    assert "A CPU gains little or nothing" in run.stdout and not record["recorded"]


def test_runs_of_a_seed_differ_in_what_a_pass_allows(parts):
    data, _, config = parts("model=dat", "loss.lambda1=0.3", "loss.lambda3=0")
    losses = [fused._task(config, data, seed=0, setting=setting).loss for setting in range(2)]
    assert [loss.lambda1 for loss in losses] == [0.3, 0.3 * 1.01] and losses[1].lambda3 == 0
    data, _, config = parts("model=mf", "optimizer.lr=0.1")
    tasks = [fused._task(config, data, seed=0, setting=setting) for setting in range(2)]
    assert [task.optimizer.keywords["lr"] for task in tasks] == [0.1, 0.1 * 1.01]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("model=popularity", "the model is fitted in closed form"),
        ("model/history=gru", "recurrent kernels take the weights of one model"),
        ("record=true", "recorded steps need an NVIDIA GPU, and the run is on cpu"),
        ("data.batch_size=5000", "data.batch_size=5000: the training data have"),
    ],
)
def test_runs_that_no_pass_trains_are_refused(script, setting, line):
    run = script("benchmark", "benchmark=fused", *SMALL, "trainer.accelerator=cpu", setting)
    assert run.returncode == 1 and line in run.stderr and "Traceback" not in run.stderr
