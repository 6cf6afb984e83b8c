"""Figures are those of the loaded model, whatever precision the trainer works in."""

import copy
import json

import polars as pl
import pytest
import pytorch_lightning
import torch

from tests.conftest import make_data
from tests.helpers.measured import LIMITS, sample_of
from tests.helpers.models import MODELS, build, make_dat
from tests.helpers.runs import SMALL
from twotower import load
from twotower.data.readers.synthetic import Synthetic
from twotower.layers.precision import float32_weights
from twotower.metrics.hit_rate import HitRate
from twotower.metrics.mrr import MRR
from twotower.metrics.ndcg import NDCG
from twotower.metrics.recall import Recall
from twotower.models.oracle import Oracle
from twotower.retrieval.exact import encode_corpus, encode_users, target_ranks
from twotower.training.diagnostics.measure import measure
from twotower.training.task import RetrievalTask

LOW = ("bf16-true", "16-true", "bf16-mixed")
PRECISIONS = (*LOW, "64-true")
CPU = torch.device("cpu")


def metrics(num_groups=1):
    return [
        HitRate(num_groups, [10]),
        Recall(num_groups, [10]),
        NDCG(num_groups, [10]),
        MRR(num_groups),
    ]


def task_of(model, data):
    names = data.group_names
    return RetrievalTask(model, None, None, metrics(len(names)), names, None)


def run(task, data, precision, part="test"):
    """An evaluation by Lightning, its ranks ordered by user."""
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (trainer.test if part == "test" else trainer.validate)(task, data, verbose=False)
    return task.ranks[task.ranks[:, 0].argsort(stable=True)]


@torch.no_grad()
def ranks_by_hand(model, data):
    """As the loaded model ranks: ``(num_targets, 3)`` user, item, rank."""
    corpus = encode_corpus(model, data.corpus(CPU), data.schema.num_items)
    found = []
    for batch in map(data.eval_batch, data.test_dataloader()):
        user = encode_users(model, batch.user)
        assert user.dtype == corpus.dtype and user.dtype in (torch.float32, torch.float64)
        rank = target_ranks(user, corpus, batch.target, batch.seen_row, batch.seen_item)
        found.append(torch.stack([batch.user_index[:, None], batch.target, rank], 2)[:, 0])
    found = torch.cat(found)
    return found[found[:, 0].argsort(stable=True)]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """So many items that scores rounded to 16 bits give other ranks."""
    folder = tmp_path_factory.mktemp("wide")
    data = make_data(folder, Synthetic(80, 300, 3, 6, 8, seed=1), eval_batch_size=20)
    data.setup()
    return data


@pytest.fixture(scope="module")
def models(wide):
    return {name: build(name, wide) for name in MODELS}


PAIRS = [
    pytest.param(
        name, precision, marks=() if name == "dat" or precision == "bf16-true" else pytest.mark.slow
    )
    for name in MODELS
    for precision in PRECISIONS
]


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_recorded_ranks_are_those_of_the_loaded_model(name, precision, wide, models):
    task = task_of(copy.deepcopy(models[name]), wide)
    recorded = run(task, wide, precision)
    weights = {key: (value.dtype, value.data_ptr()) for key, value in task.state_dict().items()}
    loaded = task_of(copy.deepcopy(models[name]), wide).eval()
    loaded.load_state_dict(task.state_dict())
    assert torch.equal(recorded.long(), ranks_by_hand(loaded.model, wide))
    rank = recorded[:, 2:].long()
    for metric in metrics():
        metric.update(rank, torch.ones_like(rank)[:, :, None])
        value = metric.compute().item()
        assert task.results["test"][metric.labels()[0]] == pytest.approx(value, rel=1e-12)
    run(task, wide, precision, "val")
    after = {key: (value.dtype, value.data_ptr()) for key, value in task.state_dict().items()}
    assert after == weights  # training goes on with its own weights
    assert all(metric.total.dtype == torch.float64 for metric in task.evaluation.metrics)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_oracle_does_not_lose_by_low_precision(precision, wide):
    expected = run(task_of(Oracle(), wide), wide, "32-true")
    assert torch.equal(run(task_of(Oracle(), wide), wide, precision), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_popularity_stays_as_it_was_counted(models, dtype):
    """Rounded to 16 bits, items of like popularity would tie."""
    model = copy.deepcopy(models["popularity"])
    counts = torch.arange(1000.0, 1000 + len(model.share))
    model.share.copy_(counts)
    assert torch.equal(model.to(dtype).share, counts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_metrics_count_on_whatever_their_module_becomes(dtype):
    """In bfloat16 a sum of ones ends at 256, and 1 / 3 has two digits."""
    module = torch.nn.ModuleList(metrics())
    module.to(dtype).to(dtype=torch.float32).to(dtype)
    rank = torch.tensor([[1, 20, 30]])
    for metric in module:
        for _ in range(300):
            metric.update(rank, torch.ones(1, 3, 1, dtype=torch.bool))
        assert (
            metric.total.dtype == metric.count.dtype == torch.float64 and metric.count.item() == 300
        )
        metric.reset()
        assert metric.total.dtype == torch.float64
        metric.update(rank, torch.ones(1, 3, 1, dtype=torch.bool))
    hit_rate, recall, ndcg, mrr = (metric.compute().item() for metric in module)
    assert (hit_rate, mrr) == (1, 1) and recall == pytest.approx(1 / 3, abs=1e-15)
    best = 1 + 1 / torch.tensor([3.0, 4.0]).double().log2()
    assert ndcg == pytest.approx(1 / (best.sum() - 1).item(), abs=1e-15)


def test_weights_in_full_are_copies_and_the_own_ones_come_back():
    layer = torch.nn.Linear(3, 2).to(torch.bfloat16)
    own = {name: (tensor, tensor.data_ptr()) for name, tensor in layer.named_parameters()}
    with pytest.raises(ZeroDivisionError), torch.inference_mode(), float32_weights(layer):
        assert all(tensor.dtype == torch.float32 for tensor in layer.parameters())
        assert layer(torch.ones(1, 3)).dtype == torch.float32
        1 / 0  # noqa: B018
    for name, tensor in layer.named_parameters():
        assert tensor is own[name][0] and tensor.data_ptr() == own[name][1]
        assert tensor.dtype == torch.bfloat16
    layer(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()  # it can still be trained


def test_diagnostics_measure_the_vectors_of_the_evaluation(data):
    model = make_dat(data.schema).eval().to(torch.bfloat16)
    with float32_weights(model):
        sample = sample_of(data, model)
        expected = measure(model, sample, LIMITS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure(model, sample, LIMITS)
    vectors = [diagnosis.tables["plane"].pop("vectors") for diagnosis in (found, expected)]
    assert found == expected
    assert torch.equal(*vectors)


@pytest.mark.parametrize(
    "precision",
    ["bf16-true", *(pytest.param(p, marks=pytest.mark.slow) for p in ("bf16-mixed", "64-true"))],
)
def test_all_commands_tell_of_the_same_ranks(script, precision):
    small = (
        *SMALL,
        "data.reader.num_items=300",
        "trainer.max_epochs=1",
        f"trainer.precision={precision}",
    )
    trained = script("train", *small, "hydra.run.dir=run")
    assert trained.returncode == 0, trained.stderr
    record, folder = script.metrics("run"), script.folder / "run"
    for part in ("val", "test"):
        again = script(
            "evaluate", "ckpt_path=run/checkpoints/best.ckpt", f"split={part}", "output=again.json"
        )
        assert again.returncode == 0, again.stderr
        found = json.loads((script.folder / "again.json").read_text())[part]
        assert found == record[part]
    model = load(folder, cache_dir=script.folder / "cache")
    users, items = model.users.raw, model.items.raw
    ranks = pl.read_parquet(folder / "test_ranks.parquet")
    moved = 0  # a user encoded alone may differ in the last bit
    for user, item, rank in ranks.select("user", "item", "rank").head(60).iter_rows():
        place = dict(
            model.recommend(users[user], len(items), before="test")
            .select("item", "rank")
            .iter_rows()
        )
        moved += place[items[item]] != rank
    assert moved <= 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_an_export_ranks_as_the_run_did(script, precision):
    pytest.importorskip("twotower.export.parity")
    small = (*SMALL, "data.reader.num_items=300", "trainer.max_epochs=1")
    trained = script("train", *small, f"trainer.precision={precision}", "hydra.run.dir=run")
    assert trained.returncode == 0, trained.stderr
    ranks = pl.read_parquet(script.folder / "run" / "test_ranks.parquet")
    checkpoint = ("ckpt_path=run/checkpoints/best.ckpt", "output=export")
    exported = script("export", *checkpoint, "parity.num_users=150", "parity.k=20")
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((script.folder / "export" / "manifest.json").read_text())
    assert manifest["parity"]["exact_hit_rate"] == pytest.approx((ranks["rank"] <= 20).mean())
