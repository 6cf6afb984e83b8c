"""Sharded tables train, evaluate and resume as whole tables in one process do."""

import io
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.conftest import in_two_processes, make_data
from tests.helpers.models import MODELS, build
from tests.helpers.runs import SMALL
from twotower.data.batches.loader import EvalLoader
from twotower.data.sampling import Uniform
from twotower.distributed import sharding
from twotower.distributed.fetching import Request, _place, fetched_together
from twotower.distributed.sharding import Block, Shard, built_for, gather_rows, num_rows
from twotower.distributed.sharding_checkpoint import own_optimizer, whole_optimizer
from twotower.layers import feature_embedding
from twotower.layers.embedding_table import EmbeddingTable, table
from twotower.layers.feature_embedding import HistoryEmbedding, MultiEmbedding
from twotower.layers.history import Attention
from twotower.optimizers.row_sparse import LazyAdam, RowwiseAdagrad
from twotower.retrieval.corpus import Corpus
from twotower.training.task import RetrievalTask

ROWS, DIM = 11, 3
IDS = (
    [4, 7, 4, 10, 0],
    [7, 1, 4],
)  # of each process; 7 and 4 are asked for by both, 2 and others by none
HISTORIES = ([[0, 0, 3], [0, 9, 4]], [[0, 0, 0], [4, 4, 1], [0, 0, 6]])
SETTINGS = {
    "lr": 0.1,
    "table_lr": None,
    "betas": [0.9, 0.99],
    "eps": 1e-8,
    "weight_decay": 0.1,
    "min_rows": 8,
}


@pytest.mark.parametrize("rows", [1, 15, 16, 32, 49, 97])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shards_are_drawn_as_the_whole_and_leave_the_same_random_numbers(
    rows, world_size, monkeypatch
):
    monkeypatch.setattr(sharding, "BLOCK", 32)
    torch.manual_seed(0)
    whole, after = table(rows, DIM).detach(), torch.rand(())
    for rank in range(world_size):
        torch.manual_seed(0)
        with built_for(rank, world_size):
            own = table(rows, DIM, "row")
        assert torch.equal(own.detach(), whole[rank::world_size]) and torch.equal(
            torch.rand(()), after
        )
        assert (
            len(own) == own.shard.num_own
            and num_rows(own) == rows
            and own.shard.num_own <= own.shard.width
        )


@pytest.mark.parametrize("name", sorted({*MODELS} - {"ials", "popularity"}))
def test_every_model_shards_all_its_tables(name, data):
    """Initial weights are those of one process: dense ones everywhere, table rows by shard."""
    whole = dict(build(name, data).named_parameters())
    tables = {key for key, value in whole.items() if getattr(value, "is_table", False)}
    assert tables
    for rank in range(2):
        with built_for(rank, 2):
            model = build(name, data, "model.sharding=row")
        for key, value in model.named_parameters():
            assert torch.equal(value, whole[key][rank::2] if key in tables else whole[key]), key


def test_a_model_without_tables_has_no_such_setting(script):
    for name in ("ials", "popularity"):
        run = script("train", *SMALL, f"model={name}", "model.sharding=row")
        assert run.returncode == 1 and "unknown setting model.sharding" in run.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("model.sharding=rows",), "model.sharding must be one of none, row, torchrec, got 'rows'"),
        (
            ("model.sharding=row", "trainer.devices=2", "+trainer.gradient_clip_val=1"),
            "trainer.gradient_clip_val",
        ),
        (
            ("model.sharding=row", "trainer.devices=2", "trainer.strategy=ddp_spawn"),
            "set trainer.strategy=ddp",
        ),
    ],
)
def test_what_cannot_work_is_refused(script, settings, said):
    run = script("train", *SMALL, *settings)
    assert run.returncode == 1 and said in run.stderr and len(run.stderr.strip().splitlines()) == 1


def test_all_processes_have_the_same_number_of_evaluation_batches_and_every_user_is_in_one():
    position, num_targets = torch.arange(7), torch.ones(7, dtype=torch.long)
    for batch_size, sizes in ((3, ([3, 1], [3, 0])), (2, ([2, 2], [2, 1])), (4, ([4], [3]))):
        loaders = [EvalLoader(position, num_targets, batch_size, rank, 2) for rank in range(2)]
        assert tuple([len(index.position) for index in loader] for loader in loaders) == sizes
        assert sorted(
            int(user) for loader in loaders for index in loader for user in index.position
        ) == list(range(7))


@pytest.mark.parametrize(
    "history", ["mean", "attention", "gru", "transformer", "bsarec", "hstu", "ligr"]
)
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_nobody_is_evaluated(name, history, data):
    if history != "mean" and name not in ("dat", "two_tower"):
        return
    model = build(name, data, *([f"model/history={history}"] if history != "mean" else []))
    task = RetrievalTask(model, None, None, [], data.group_names, None)
    chunks = data.corpus(torch.device("cpu"))
    task.evaluation.items = Corpus.encoded(model, chunks, data.schema.num_items)
    nobody = data.eval_batch(
        next(
            iter(EvalLoader(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), 4))
        )
    )
    with torch.no_grad():
        assert task.evaluation.rank(nobody).shape == (0, 1) and nobody.group.shape == (
            0,
            1,
            len(data.group_names),
        )


@pytest.mark.parametrize("kind", [Shard, Block])
def test_ids_outside_a_sharded_table_are_refused(kind):
    shard = kind(0, 2, ROWS)
    assert len(_place(torch.tensor([0, ROWS - 1]), shard)) == 2
    for ids in ([0, ROWS], [-1, 3]):
        with pytest.raises(IndexError, match=f"in a table of {ROWS} rows"):
            _place(torch.tensor(ids), shard)


# In two processes, against whole tables in this one


def packed(found):
    """As bytes: tensors that travel between processes as they are end with theirs."""
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()


def unpacked(worker, tmp_path):
    return [
        torch.load(io.BytesIO(found), weights_only=True)
        for found in in_two_processes(worker, tmp_path / "rendezvous")
    ]


def make_layers(cold_ids):
    """One of each kind in float64."""
    torch.manual_seed(0)
    layers = nn.ModuleDict(
        {
            "id": EmbeddingTable(ROWS, DIM, cold_ids, "row"),
            "multi": MultiEmbedding(ROWS, DIM, "row"),
            "history": HistoryEmbedding(ROWS, DIM, Attention(DIM), "row"),
        }
    )
    return layers.double()


def loss_of(layers, ids, histories):
    """Not linear in the rows: a row's gradient depends on its value."""
    index, history = torch.tensor(ids, dtype=torch.int), torch.tensor(histories)
    parts = layers["id"](index), layers["multi"](history), layers["history"](history)
    nothing = layers["id"](index[:0])  # one lookup of nothing, in both processes
    return sum((part.sin() * torch.tensor([1.0, 2.0, 3.0])).sum() for part in (*parts, nothing))


OPTIMIZERS = {
    "rowwise_adagrad": lambda params: RowwiseAdagrad(params, **SETTINGS),
    "lazy_adam": lambda params: LazyAdam(params, **SETTINGS),
    "adamw": lambda params: torch.optim.AdamW(params, 0.1, weight_decay=0.1),
}


def train_shards(rank):
    found = {}
    for name, make in OPTIMIZERS.items():
        with built_for(rank, 2):
            layers = make_layers("trained")
        optimizer = make(layers.parameters())
        for step in range(3):
            optimizer.zero_grad()
            ids, histories = (
                ([], [[0, 0, 0]]) if step == 1 and rank == 1 else (IDS[rank], HISTORIES[rank])
            )
            loss_of(layers, ids, histories).backward()
            for parameter in layers["history"].encoder.parameters():  # DDP's part
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2
            optimizer.step()
        before = optimizer.state_dict()
        state = whole_optimizer(optimizer, before)
        again = own_optimizer(optimizer, state) if rank == 0 else before
        same = all(
            torch.equal(a, before["state"][i][key])
            for i, entries in again["state"].items()
            for key, a in entries.items()
        )
        found[name] = (
            {key: value.detach() for key, value in layers.named_parameters()},
            state["state"],
            same,
        )
    return packed(found)


@pytest.mark.slow
def test_optimizers_of_two_processes_are_one(tmp_path):
    """Weights and states after three steps, in one of which a process asks for nothing."""
    first, second = unpacked(train_shards, tmp_path)
    for name, make in OPTIMIZERS.items():
        layers = make_layers("trained")
        optimizer = make(layers.parameters())
        for step in range(3):
            optimizer.zero_grad()
            own = loss_of(layers, IDS[0], HISTORIES[0])
            other = (
                loss_of(layers, [], [[0, 0, 0]])
                if step == 1
                else loss_of(layers, IDS[1], HISTORIES[1])
            )
            ((own + other) / 2).backward()
            optimizer.step()
        for key, value in layers.named_parameters():
            for rank, found in enumerate((first, second)):
                expected = value[rank::2] if getattr(value, "is_table", False) else value
                rest = int(
                    key == "history.table.weight" and rank == 0
                )  # its padding, never read, decays in one process
                got, message = found[name][0][key], f"{name} {key}"
                torch.testing.assert_close(
                    got[rest:], expected[rest:].detach(), rtol=0, atol=1e-14, msg=message
                )
        assert first[name][2] and second[name][2]
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                torch.testing.assert_close(
                    first[name][1][index][key], value, rtol=0, atol=1e-14, msg=f"{name} {key}"
                )


def exchanges(rank):
    """Exchanges of a training step of each model, and what a model returns and learns."""
    count, send = [], dist.all_to_all_single

    def counted(*args, **kwargs):
        count.append(1)
        return send(*args, **kwargs)

    dist.all_to_all_single = counted
    found = {}
    with TemporaryDirectory() as folder:
        data = make_data(Path(folder))
        data.setup()
    data.negatives = Uniform(3, False)
    index = next(iter(data.train_dataloader()))._replace(rank=rank, world_size=2)
    for name in sorted({*MODELS} - {"ials", "popularity"}):
        batch = data.train_batch(index)
        batch = batch._replace(behaviour=torch.zeros_like(batch.positive))
        results = []
        for together in (True, False):
            torch.manual_seed(0)
            with built_for(rank, 2):
                model = build(name, data, "model.sharding=row").double()
            module = sys.modules[type(model).__module__]
            if not together:  # each lookup for itself
                module.fetched_together = lambda requests: nullcontext()
                feature_embedding.fetched_together = lambda requests: nullcontext()
            count.clear()
            towers = model(batch)
            (towers.user.sin().sum() + towers.item.cos().sum()).backward()
            module.fetched_together = feature_embedding.fetched_together = fetched_together
            gradients = {
                key: value.grad for key, value in model.named_parameters() if value.grad is not None
            }
            results.append((towers.user.detach(), towers.item.detach(), gradients, len(count)))
        found[name] = results
    dist.all_to_all_single = send
    return packed(found)


@pytest.mark.slow
def test_the_rows_of_all_tables_travel_together(tmp_path):
    for found in unpacked(exchanges, tmp_path):
        assert {name: result[0][3] for name, result in found.items()} == dict.fromkeys(found, 4)
        for name, (together, alone) in found.items():
            assert alone[3] >= 8, name  # four of each lookup
            torch.testing.assert_close(together[:3], alone[:3], rtol=0, atol=1e-12)
            assert together[2], name


def ask_for_too_little(rank):
    with built_for(rank, 2):
        layer = EmbeddingTable(ROWS, DIM, "trained", "row")
    messages = []
    with fetched_together([Request(layer.weight, torch.tensor([4, 7]))]):
        layer(torch.tensor([7]))
        for ids in ([5], [10], [7, 3]):
            try:
                layer(torch.tensor(ids))
            except RuntimeError as error:
                messages.append(str(error))
    before = len(messages)
    found = layer(torch.tensor([5]))  # afterwards it exchanges again
    return packed({"messages": messages[:before], "shape": list(found.shape)})


@pytest.mark.slow
def test_ids_that_were_not_requested_are_refused(tmp_path):
    for found in unpacked(ask_for_too_little, tmp_path):
        assert found["shape"] == [1, DIM]
        assert found["messages"] == ["a lookup in a table needs ids that were not requested"] * 3


def read_shards(rank):
    found = {}
    for cold_ids in ("mean", "zero", "trained"):
        with built_for(rank, 2):
            layers = make_layers(cold_ids).eval()
        with torch.no_grad():
            found[cold_ids] = layers["id"](torch.tensor([IDS[0], []][rank], dtype=torch.int))
            layers["id"].fix_cold_row()
            fixed = layers["id"].weight
            found[f"{cold_ids}, fixed"] = gather_rows(fixed, fixed.shard)
    sharding.BLOCK = 2
    whole = torch.arange(ROWS * 2).view(ROWS, 2)
    shard = Shard(rank, 2, ROWS)
    found["whole"] = gather_rows(shard.own(whole), shard)
    return packed(found)


@pytest.mark.slow
def test_cold_ids_and_whole_tables_are_right_over_shards(tmp_path):
    """A process that has no cold id takes part in the mean that another needs."""
    first, second = unpacked(read_shards, tmp_path)
    weight = make_layers("trained")["id"].weight.detach()
    cold = {"mean": weight[1:].mean(0), "zero": torch.zeros(DIM), "trained": weight[0]}
    for policy, row in cold.items():
        torch.testing.assert_close(
            first[policy], torch.cat([weight[IDS[0][:-1]], row[None].double()])
        )
        torch.testing.assert_close(
            first[f"{policy}, fixed"], torch.cat([row[None].double(), weight[1:]])
        )
        assert second[policy].shape == (0, DIM)
    assert (
        torch.equal(first["whole"], torch.arange(ROWS * 2).view(ROWS, 2))
        and len(second["whole"]) == 0
    )


# Whole runs. Of 151 users, one process has 76 and the other 75: with batches of 25 that is
# 4 batches and 3

WORLD = (
    *(
        setting
        for setting in SMALL
        if not setting.startswith(("data.", "trainer.max_epochs", "callbacks.diagnostics"))
    ),
    *(
        "data.reader.num_users=151",
        "data.reader.num_items=80",
        "data.reader.interactions_per_user=10",
    ),
    *(
        "data.eval_batch_size=25",
        "data.history_length=5",
        "trainer.precision=64-true",
        "trainer.max_epochs=2",
    ),
)
ONE, TWO = ("trainer.devices=1", "data.batch_size=60"), ("trainer.devices=2", "data.batch_size=30")
DAT = ("model=dat", "loss.lambda1=0.5", "loss.lambda2=0.3", "loss.lambda3=1")
ALONE = "callbacks.diagnostics=null"


def train(script, pair, run, *settings):
    return last_of(script, pair, run, "train", *WORLD, *settings, f"hydra.run.dir={run}")


def last_of(script, pair, run, *command):
    if "trainer.devices=2" in command:
        pair(script, *command)
    else:
        done = script(*command)
        assert done.returncode == 0, done.stderr
    return torch.load(script.folder / run / "checkpoints/last.ckpt", weights_only=True)


def assert_same(found, expected, exactly=1e-11):
    assert found["global_step"] == expected["global_step"] > 10
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=0, atol=exactly, msg=name)
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (found, expected)]
    assert states[0].keys() == states[1].keys()
    for index, entries in states[1].items():
        for key, value in entries.items():
            torch.testing.assert_close(
                states[0][index][key], value, rtol=0, atol=exactly, msg=f"{index} {key}"
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (*DAT, "loss/task=in_batch_softmax", "loss.alignment.momentum=0.5", "optimizer=adam"),
        (
            *DAT,
            "loss/task=sampled_softmax",
            "negatives=shared_uniform",
            "optimizer=rowwise_adagrad",
            "optimizer.min_rows=1",
            ALONE,
        ),
        (
            *DAT,
            "loss/task=bce",
            "negatives=uniform",
            "optimizer=lazy_adam",
            "optimizer.min_rows=50",
            ALONE,
        ),
        (
            "model=two_tower",
            "model/history=transformer",
            "model.share_item_table=true",
            "model.history.dropout=0",
            ALONE,
        ),
        ("model=mf", "optimizer=rowwise_adagrad", "optimizer.min_rows=1", ALONE),
        ("model=mind", "optimizer=lazy_adam", "optimizer.min_rows=1", ALONE),
    ],
    ids=lambda settings: "+".join(settings[:1] + settings[-3:-1]),
)
def test_two_processes_with_half_the_rows_each_are_one(script, pair, settings):
    one = train(script, pair, "one", *settings, *ONE)
    two = train(script, pair, "two", *settings, *TWO, "model.sharding=row")
    assert_same(two, one)
    for part in ("val", "test"):
        assert script.metrics("two")[part] == pytest.approx(script.metrics("one")[part], rel=1e-12)
    diagnostics = script.metrics("two")["diagnostics"]
    assert (diagnostics is None) == (ALONE in settings)


@pytest.mark.slow
def test_checkpoints_go_on_with_any_number_of_processes_and_are_read_by_one(script, pair):
    chosen = (
        *DAT,
        "loss/task=in_batch_softmax",
        "optimizer=rowwise_adagrad",
        "optimizer.min_rows=50",
        "model.sharding=row",
        ALONE,
    )
    whole = train(script, pair, "whole", *chosen, *ONE)
    for first, then in ((ONE, TWO), (TWO, ONE)):
        run = f"from_{first[0][-1]}"
        train(script, pair, run, *chosen, *first, "trainer.max_epochs=1")
        resumed = last_of(
            script,
            pair,
            run,
            "train",
            f"ckpt_path={run}/checkpoints/last.ckpt",
            *then,
            "trainer.max_epochs=2",
        )
        assert_same(
            resumed, whole, 2e-6
        )  # Lightning loads float64 weights into a model that is still float32
        assert script.metrics(run)["test"] == pytest.approx(
            script.metrics("whole")["test"], rel=1e-12
        )
    for devices in (1, 2):
        best = "ckpt_path=from_1/checkpoints/best.ckpt"
        last_of(
            script,
            pair,
            "from_1",
            "evaluate",
            best,
            f"trainer.devices={devices}",
            f"output={devices}.json",
        )
        found = json.loads((script.folder / f"{devices}.json").read_text())["test"]
        assert found == pytest.approx(script.metrics("from_1")["test"], rel=1e-12)
    shown = script("recommend", "ckpt_path=from_1/checkpoints/best.ckpt", "user_id=1")
    assert shown.returncode == 0, shown.stderr


def test_one_process_with_shards_is_one_without(script):
    for name in ("none", "row"):
        run = script(
            "train",
            *SMALL,
            "trainer.max_epochs=1",
            f"model.sharding={name}",
            f"hydra.run.dir={name}",
        )
        assert run.returncode == 0, run.stderr
    assert all(
        torch.equal(value, script.weights("none")[name])
        for name, value in script.weights("row").items()
    )


def test_another_number_of_processes_keeps_the_whole_batch(script):
    run = script("train", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    again = script(
        "train", "ckpt_path=run/checkpoints/last.ckpt", "trainer.devices=2", "data.batch_size=33"
    )
    assert again.returncode == 1 and "data.batch_size=33: the checkpoint has 64" in again.stderr
    again = script("train", "ckpt_path=run/checkpoints/last.ckpt", "trainer.devices=2")
    assert (
        again.returncode == 1
        and "steps take 64 positives, 2 processes of data.batch_size=64 would take 128"
        in again.stderr
    )


def test_a_resumed_run_may_shard_in_another_way(script):
    run = script("train", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    resumed = ("ckpt_path=run/checkpoints/last.ckpt", "model.sharding=row", "trainer.max_epochs=2")
    again = script("train", *resumed)
    assert again.returncode == 0, again.stderr
    last = torch.load(script.folder / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["twotower"]["config"]["model"]["sharding"] == "row" and last["epoch"] == 1
