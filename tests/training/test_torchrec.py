"""Tables that TorchRec trains are those of ``model.sharding=row``, to the rounding of float32."""

import importlib.util
import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.conftest import ROOT, Script, in_two_processes
from tests.helpers.pair import free_port
from tests.helpers.runs import SMALL
from twotower.distributed import torchrec_tables
from twotower.distributed.fetching import fetched_together
from twotower.distributed.sharding import Block, built_for, num_rows
from twotower.distributed.sharding_checkpoint import (
    own_optimizer,
    own_tables,
    whole_optimizer,
    whole_tables,
)
from twotower.distributed.torchrec_tables import VERSIONS, torchrec_of
from twotower.errors import UserError
from twotower.layers.embedding_table import EmbeddingTable, table
from twotower.layers.feature_embedding import MultiEmbedding
from twotower.optimizers.row_sparse import RowwiseAdagrad
from twotower.training.torchrec import check, hand_over

needs_torchrec = pytest.mark.skipif(
    importlib.util.find_spec("torchrec") is None, reason="TorchRec is not installed: make torchrec"
)


# Blocks of rows


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 32, 49, 97])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_blocks_are_drawn_as_the_whole(rows, world_size, monkeypatch):
    monkeypatch.setattr("twotower.distributed.sharding.BLOCK", 32)
    torch.manual_seed(0)
    whole, after = table(rows, 3).detach(), torch.rand(())
    width, parts = -(-rows // world_size), []
    for rank in range(world_size):
        torch.manual_seed(0)
        with built_for(rank, world_size):
            own = table(rows, 3, "torchrec")
        assert torch.equal(own.detach(), whole[rank * width : (rank + 1) * width])
        assert torch.equal(torch.rand(()), after) and num_rows(own) == rows
        assert torch.equal(own.shard.own(whole), own) and len(own) == own.shard.num_own
        parts.append(own.detach())
    assert torch.equal(torch.cat(parts), whole)


def test_an_id_is_its_place_in_blocks():
    ids = torch.tensor([0, 3, 4, 10])  # blocks of 4: of processes 0, 0, 1, 2
    shard = Block(1, 3, 11)
    assert (shard.place(ids) // shard.width).tolist() == [0, 0, 1, 2]
    assert (shard.place(ids) % shard.width).tolist() == [0, 3, 0, 2]
    assert Block(2, 3, 11).num_own == 3 and Block(3, 4, 5).num_own == 0  # 2, 2, 1, 0


# What is refused


TWO = ("trainer.devices=2", "trainer.strategy=ddp")
ADAGRAD = ("optimizer=rowwise_adagrad", "optimizer.min_rows=1")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "needs several processes: set trainer.devices=2 trainer.strategy=ddp"),
        ((*TWO, "trainer.precision=64-true"), "trainer.precision=64-true: tables"),
        ((*TWO, "+trainer.accumulate_grad_batches=2"), "trainer.accumulate_grad_batches=2: tables"),
        ((*TWO, "+trainer.gradient_clip_val=1"), "trainer.gradient_clip_val would clip"),
        ((*TWO, "callbacks.speed.compile=true"), "callbacks.speed.compile=true does not work with"),
    ],
)
def test_what_cannot_work_is_refused(script, settings, said):
    run = script("train", *SMALL, *ADAGRAD, "model.sharding=torchrec", *settings)
    assert run.returncode == 1 and said in run.stderr and len(run.stderr.strip().splitlines()) == 1


def test_gradients_that_are_scaled_are_refused():
    """On a GPU; Lightning replaces 16-mixed by bf16-mixed on a CPU."""
    with pytest.raises(UserError, match="trainer.precision=16-mixed: tables"):
        check(SimpleNamespace(world_size=2, precision="16-mixed"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("optimizer=adamw",), "set optimizer=rowwise_adagrad, or set model.sharding=row"),
        (("optimizer.min_rows=10000",), "no table has optimizer.min_rows rows: set it lower"),
        (("model.embedding_dim=6",), "widths that are multiples of 4, got 6: change"),
    ],
)
def test_tables_and_optimizers_that_do_not_fit_are_refused(script, monkeypatch, settings, said):
    monkeypatch.setattr("twotower.training.torchrec.check_installed", lambda: None)
    adagrad = () if settings == ("optimizer=adamw",) else ADAGRAD
    run = script("train", *SMALL, *adagrad, *TWO, "model.sharding=torchrec", *settings)
    assert run.returncode == 1 and said in run.stderr and len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({}, r"torchrec 1.9.2 \(found none\) and fbgemm-gpu-cpu 1.8.0 \(found none\): run make"),
        ({"torchrec": "1.9.2", "fbgemm-gpu-cpu": "1.9.0"}, r"fbgemm-gpu-cpu 1.8.0 \(found 1.9.0\)"),
        ({"torchrec": "1.8.0", "fbgemm-gpu": "1.8.0+cu130"}, r"needs torchrec 1.9.2 \(found 1.8"),
        ({**VERSIONS}, "torchrec cannot be imported .*: run make torchrec, or set model.sharding"),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, installed, said):
    def cannot(name):
        raise ImportError("no such library")

    monkeypatch.setattr(torchrec_tables, "_version", installed.get)
    monkeypatch.setattr(torchrec_tables.importlib, "import_module", cannot)
    with pytest.raises(UserError, match=said):
        torchrec_tables.check_installed()


def test_the_versions_are_those_that_are_installed():
    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements" / "torchrec.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    fbgemm = VERSIONS["fbgemm-gpu-cpu"]
    assert pins["torchrec"] == VERSIONS["torchrec"] and "fbgemm-gpu" not in pins
    makefile = (ROOT / "Makefile").read_text()
    assert f"fbgemm-gpu=={fbgemm}" in makefile and f"fbgemm-gpu-cpu=={fbgemm}" in makefile


# In two processes, TorchRec beside rows


IDS = (
    ([4, 7, 4, 10, 0], [7, 1, 4]),  # of each process in a step; both ask for 4 and 7
    ([1, 10], []),  # one process asks for nothing
    ([2, 4], [4, 8]),
)


def make_layers(sharding):
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "id": EmbeddingTable(11, 4, "mean", sharding),
            "other": EmbeddingTable(20, 4, "trained", sharding),
            "multi": MultiEmbedding(13, 8, sharding),
            "single": EmbeddingTable(1, 4, "trained", sharding),  # TorchRec fails on one row
        }
    )


def requests_of(layers, ids):
    index = torch.tensor(ids, dtype=torch.long)
    return [
        *layers["id"].requests(index),
        *layers["id"].requests(index),  # a second lookup in one table
        *layers["other"].requests(index),
        *layers["multi"].requests(index[:, None]),
        *layers["single"].requests(index * 0),
    ]


def loss_of(layers, ids):
    """Not linear in the rows: a row's gradient depends on its value."""
    index = torch.tensor(ids, dtype=torch.long)
    with fetched_together(requests_of(layers, ids)):
        parts = [
            layers["id"](index),
            layers["id"](index.flip(0)) * 2,
            layers["other"](index),
            layers["multi"](index[:, None]),
            layers["single"](index * 0),
        ]
    return sum(part.sin().sum() for part in parts)


def settings_of(min_rows):
    given = {"lr": 0.1, "table_lr": 0.3, "betas": [0.9, 0.99], "eps": 0.05}
    return {**given, "weight_decay": 0.1, "min_rows": min_rows}


def trained(rank, sharding):
    with built_for(rank, 2):
        layers = make_layers(sharding)
    optimizer = RowwiseAdagrad(layers.parameters(), **settings_of(1))
    tables = hand_over(optimizer, torch.device("cpu"), 2)
    for number, ids in enumerate(IDS):
        optimizer.param_groups[-1]["lr"] = 0.3 / (number + 1)  # as a schedule does
        optimizer.zero_grad()
        loss_of(layers, ids[rank]).backward()
        optimizer.step()
    return layers, optimizer, tables


def train_both(rank):
    found = {}
    for sharding in ("row", "torchrec"):
        layers, optimizer, tables = trained(rank, sharding)
        state = whole_optimizer(optimizer, optimizer.state_dict())
        found[sharding] = {
            "weights": whole_tables(layers, layers.state_dict()),
            "sums": [entry["sum"] for entry in state["state"].values()],
            "steps": [int(entry["step"]) for entry in state["state"].values()],
        }
        layers.eval()
        with torch.no_grad():
            before = [value.clone() for value in layers.parameters()]
            found[sharding]["rows"] = layers["id"](torch.tensor([0, 9, 4][rank:]))
            after = list(layers.parameters())
        found[sharding]["still"] = all(map(torch.equal, before, after))
    assert [torchrec_of(weight) is tables for weight in after] == [True, True, True, False]
    found["errors"] = []
    layers.train()
    for ids in ([11], [-1]):
        try:
            loss_of(layers, ids)
        except IndexError as error:
            found["errors"].append(str(error))
        tables.end_step()
    layers["other"](torch.tensor([1]))  # each table for itself
    layers["id"](torch.tensor([1]))
    try:
        loss_of(layers, IDS[0][rank])
    except UserError as error:
        found["errors"].append(str(error))
    # a state of one process is loaded
    state["state"] = {
        index: {key: value + 1.0 for key, value in entry.items()}
        for index, entry in (whole_state(rank, state)["state"].items())
    }
    optimizer.load_state_dict(own_optimizer(optimizer, state))
    sums = tables.sums()
    found["loaded"] = [
        bool((sums[weight] == weight.shard.own(entry["sum"])).all())
        and optimizer.state[weight]["sum"].data_ptr() == sums[weight].data_ptr()
        for weight, entry in zip(list(sums), (state["state"][i] for i in range(3)), strict=True)
    ]
    del state["state"][0]  # of a table that no step had read
    optimizer.load_state_dict(own_optimizer(optimizer, state))
    first = next(iter(sums))
    found["loaded"].append(not sums[first].any() and not optimizer.state[first]["step"])
    layers.load_state_dict(own_tables(layers, make_layers("none").state_dict()))
    rows = tables.groups[0].collection.embeddings["table_0"].weight
    found["loaded"].append(torch.equal(rows, layers["id"].weight))
    tables.release()
    assert all(torchrec_of(weight) is None for weight in layers.parameters())
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()


def whole_state(rank, state):
    """As both processes read it from a checkpoint."""
    held = [state if rank == 0 else None]
    torch.distributed.broadcast_object_list(held)
    return held[0]


@needs_torchrec
@pytest.mark.slow
def test_torchrec_trains_as_rows_do(tmp_path):
    """Weights and sums after three steps with a schedule, weight decay and repeated ids."""
    first, second = (
        torch.load(io.BytesIO(found), weights_only=True)
        for found in in_two_processes(train_both, tmp_path / "rendezvous")
    )
    rows, fused = first["row"], first["torchrec"]
    for name, value in rows["weights"].items():
        torch.testing.assert_close(fused["weights"][name], value, rtol=0, atol=1e-6)
        assert not torch.equal(value, make_layers("none").state_dict()[name])
    for one, other in zip(rows["sums"], fused["sums"], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)
    for found in (first, second):
        assert found["torchrec"]["steps"] == found["row"]["steps"] == [3] * 4
        torch.testing.assert_close(
            found["torchrec"]["rows"], found["row"]["rows"], rtol=0, atol=1e-6
        )
        assert found["torchrec"]["still"] and found["row"]["still"]
        assert found["errors"][:2] == [
            "ids from 11 to 11 in a table of 11 rows",
            "ids from -1 to -1 in a table of 11 rows",
        ]
        assert "the model looks up a table twice in a step" in found["errors"][2]
        assert found["loaded"] == [True] * 5


# Whole runs


WORLD = (
    *(setting for setting in SMALL if not setting.startswith(("data.", "trainer.max_epochs"))),
    "data.reader.num_users=151",
    "data.reader.num_items=80",
    "data.reader.interactions_per_user=10",
    "data.eval_batch_size=25",
    "data.history_length=5",
    "optimizer=rowwise_adagrad",
    "scheduler=linear_warmup",
    "scheduler.warmup_steps=15",
    "trainer.max_epochs=2",
)
PAIR, ONE = ("trainer.devices=2", "data.batch_size=30"), ("trainer.devices=1", "data.batch_size=60")
ALL, SOME = "optimizer.min_rows=1", "optimizer.min_rows=90"  # of two tables, AdamW trains the rest
DAT = ("model=dat", "loss.lambda1=0.5", "loss.lambda2=0.3", "loss.lambda3=1")
SOFTMAX = "loss/task=in_batch_softmax"
TORCHREC, ROW = "model.sharding=torchrec", "model.sharding=row"
LAST = "checkpoints/last.ckpt"


def train(script, pair, run, *settings):
    command = ("train", *settings)
    if "trainer.devices=2" in settings:
        pair(script, *command)
    else:
        done = script(*command)
        assert done.returncode == 0, done.stderr
    return torch.load(script.folder / run / LAST, weights_only=True)


def anew(script, pair, run, *settings):
    return train(script, pair, run, *WORLD, *settings, f"hydra.run.dir={run}")


def assert_same(found, expected):
    assert found["global_step"] == expected["global_step"] > 10
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        if name.endswith("key_value.bias"):
            continue  # its gradient is zero but for rounding, which Adam makes as large as others
        torch.testing.assert_close(found["state_dict"][name], value, rtol=0, atol=3e-6, msg=name)
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (found, expected)]
    assert states[0].keys() == states[1].keys()
    for index, entries in states[1].items():
        for key, value in entries.items():
            torch.testing.assert_close(states[0][index][key], value, rtol=1e-4, atol=3e-6)


@needs_torchrec
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (*DAT, SOFTMAX, SOME),
        (*DAT, SOFTMAX, ALL, "optimizer.weight_decay=0.1", "model.dim=16"),
        ("model=two_tower", "model/history=transformer", "model.share_item_table=true", ALL),
        ("model=mind", ALL),
    ],
    ids=["dat, large tables", "dat, two widths", "transformer", "mind"],
)
def test_runs_are_those_of_rows(script, pair, settings):
    if "model/history=transformer" in settings:
        settings += ("model.history.dropout=0",)
    expected = anew(script, pair, "row", *settings, *PAIR, ROW)
    found = anew(script, pair, "torchrec", *settings, *PAIR, TORCHREC)
    assert_same(found, expected)
    for part in ("val", "test"):
        one, other = (script.metrics(run)[part] for run in ("torchrec", "row"))
        assert one == pytest.approx(other, rel=1e-3)


@needs_torchrec
@pytest.mark.slow
def test_checkpoints_go_from_torchrec_to_rows_and_one_process_and_back(script, pair):
    chosen = (*DAT, SOFTMAX, ALL)
    whole = anew(script, pair, "whole", *chosen, *PAIR, TORCHREC)
    ways = {"a": (TORCHREC, *ONE, ROW), "b": (TORCHREC, *PAIR, ROW), "c": (ROW, *PAIR, TORCHREC)}
    for run, (first, *then) in ways.items():
        anew(script, pair, run, *chosen, *PAIR, first, "trainer.max_epochs=1")
        resumed = (f"ckpt_path={run}/{LAST}", *then, "trainer.max_epochs=2")
        assert_same(train(script, pair, run, *resumed), whole)
    best = "ckpt_path=whole/checkpoints/best.ckpt"
    for devices in (1, 2):
        command = ("evaluate", best, f"trainer.devices={devices}", f"output={devices}.json")
        if devices == 2:
            pair(script, *command)
        else:
            done = script(*command)
            assert done.returncode == 0, done.stderr
        found = json.loads((script.folder / f"{devices}.json").read_text())["test"]
        assert found == pytest.approx(script.metrics("whole")["test"], rel=1e-6)
    for command in (("recommend", best, "user_id=1"), ("export", best, "output=exported")):
        done = script(*command)
        assert done.returncode == 0, done.stderr


@needs_torchrec
@pytest.mark.slow
def test_a_killed_run_is_resumed(script, pair, monkeypatch):
    chosen = (*WORLD, *DAT, SOFTMAX, ALL, *PAIR, TORCHREC, "callbacks.last.every_n_steps=2")
    whole = train(script, pair, "whole", *chosen, "hydra.run.dir=whole")
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = []
    for rank in range(2):
        own = Script(script.folder, monkeypatch)
        own.env |= {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
        own.env["TORCHELASTIC_RUN_ID"] = "killed"
        processes.append(own.popen("train", *chosen, "trainer.max_epochs=9", "hydra.run.dir=run"))
    last: Path = script.folder / "run" / LAST
    while not last.exists():
        assert all(process.poll() is None for process in processes), processes[0].stderr.read()
        time.sleep(0.001)
    for process in processes:
        process.kill()
        process.communicate()
    step = torch.load(last, weights_only=True)["global_step"]
    assert 0 < step < whole["global_step"]
    assert_same(
        train(script, pair, "run", f"ckpt_path=run/{LAST}", "trainer.max_epochs=2", *PAIR), whole
    )
