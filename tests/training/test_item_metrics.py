"""Coverage, novelty and debiased metrics of real lists: in an evaluation, a run and a report."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.composition import compose_train
from tests.helpers.models import build
from tests.helpers.runs import SMALL
from twotower.data.readers.synthetic import Synthetic
from twotower.data.splits import Temporal
from twotower.export.card import half_widths
from twotower.metrics.coverage import Coverage
from twotower.metrics.ndcg import NDCG
from twotower.retrieval import corpus
from twotower.run.build import build_metrics
from twotower.training.evaluation import Evaluation

CHOSEN = "metric=[hit_rate,ndcg,coverage,novelty,debiased_hit_rate,debiased_ndcg]"
METRICS = ("coverage", "novelty", "debiased_hit_rate", "debiased_ndcg")
K = 3


def evaluated(data, model, *overrides):
    config = compose_train(CHOSEN, *(f"metric.{name}.k=[{K}]" for name in METRICS), *overrides)
    measured = Evaluation(model, build_metrics(config, data), data.group_names)
    with torch.no_grad():
        cpu = torch.device("cpu")
        measured.start(data.corpus, data.schema.num_items, cpu, "32-true")
        for index in data.test_dataloader():
            measured.rank(data.eval_batch(index))
        return measured.finish()


def by_hand(data, model, power=0.5):
    """Loops over users with a sort of all scores; ties count against the target."""
    trained = data.train_interactions().item.numpy() - 1
    count = np.bincount(trained, minlength=data.schema.num_items)
    assert (count == 0).any()  # cold items
    with torch.no_grad():
        corpus = torch.cat(
            [model.encode_item(chunk) for chunk in data.corpus(torch.device("cpu"))]
        ).numpy()
    shown, news, weights, hits, gains = set(), [], [], [], []
    for index in data.test_dataloader():
        batch = data.eval_batch(index)
        with torch.no_grad():
            user = model.encode_user(batch.user).numpy()
        score = user @ corpus.T
        score = score.max(1) if score.ndim == 3 else score
        score[batch.seen_row, batch.seen_item] = -np.inf
        for own, targets in zip(score, batch.target.numpy(), strict=True):
            best = [i for i in np.argsort(-own)[:K] if own[i] > -np.inf]
            shown.update(best)
            news.append(np.mean([-np.log2(max(count[i], 1) / count.sum()) for i in best]))
            for target in targets[targets >= 0]:
                rank = (own >= own[target]).sum()
                hit = own[target] > -np.inf and rank <= K
                weights.append(max(count[target], 1) ** -power)
                hits.append(hit)
                gains.append(hit / np.log2(1 + rank))
    return {
        f"coverage@{K}": len(shown) / len(corpus),
        f"novelty@{K}": np.mean(news),
        f"debiased_hit_rate@{K}": np.average(hits, weights=weights),
        f"debiased_ndcg@{K}": np.average(gains, weights=weights),
    }


@pytest.fixture
def world(tmp_path):
    """Users with several targets, some of them seen or cold."""
    data = make_data(tmp_path, Synthetic(60, 200, 3, 6, 8, seed=1), split=Temporal(0.5, 0.6, 1))
    data.setup()
    return data


@pytest.mark.parametrize("name", ["two_tower", "mind"])
def test_an_evaluation_equals_loops_over_users(world, name):
    model = build(name, world)
    found, expected = evaluated(world, model), by_hand(world, model)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert 0 < found[f"coverage@{K}"] < 1
    groups = {key.split("/")[0] for key in found if "/debiased_ndcg" in key}
    assert {"head", "tail", "cold"} <= groups
    assert not [key for key in found if "/coverage" in key or "/novelty" in key]


def test_only_values_that_exist_can_be_monitored(world):
    metrics = build_metrics(compose_train(CHOSEN), world)
    names = Evaluation(build("two_tower", world), metrics, world.group_names).names()
    assert {"coverage@10", "novelty@10", "head/ndcg@10", "head/debiased_ndcg@10"} <= set(names)
    assert not [name for name in names if "/coverage" in name or "/novelty" in name]


def test_lists_are_made_for_metrics_that_read_them_alone(world, monkeypatch):
    made = []
    top_k = corpus.top_k
    monkeypatch.setattr(corpus, "top_k", lambda *args: made.append(args[-1]) or top_k(*args))
    model = build("two_tower", world)
    lists = ("metric.coverage=null", "metric.novelty=null")
    evaluated(world, model, *lists)
    assert not made
    evaluated(world, model, "metric.coverage.k=[2,5]")
    assert set(made) == {5}


def test_a_run_its_evaluation_and_a_report_have_them(script):
    done = script("train", *SMALL, CHOSEN, "trainer.max_epochs=1", "hydra.run.dir=runs/one")
    assert done.returncode == 0, done.stderr
    record = script.metrics("runs/one")
    test, popular = record["test"], record["popularity"]
    # the most popular unseen items are few, and are known
    assert test["coverage@10"] > popular["coverage@10"]
    assert test["novelty@10"] > popular["novelty@10"]
    assert 0 < test["debiased_hit_rate@10"] < 1 and "head/debiased_ndcg@10" in test
    ranks, metrics = (
        script.folder / "runs/one/test_ranks.parquet",
        [Coverage(1, [10]), NDCG(1, [10])],
    )
    assert list(half_widths(ranks, metrics, test)) == ["ndcg@10"]  # of an export's model card
    again = script("evaluate", "ckpt_path=runs/one", "output=again.json")
    assert again.returncode == 0, again.stderr
    assert json.loads((script.folder / "again.json").read_text())["test"] == test
    chosen = ("metric=[novelty,hit_rate]", "metric.novelty.k=[2]", "output=other.json")
    other = script("evaluate", "ckpt_path=runs/one", *chosen)
    assert other.returncode == 0, other.stderr
    found = json.loads((script.folder / "other.json").read_text())["test"]
    assert found["hit_rate@10"] == test["hit_rate@10"]
    assert found["novelty@2"] > 0 and "ndcg@10" not in found and "novelty@10" not in found
    columns = "columns=[coverage@10,novelty@10,debiased_ndcg@10]"
    shown = script("report", "runs=runs", "compare=hit_rate@10", columns)
    assert shown.returncode == 0, shown.stderr
    assert "Coverage@10" in shown.stdout and "Debiased NDCG@10" in shown.stdout
    compared = script("report", "runs=runs", "compare=coverage@10", "columns=[hit_rate@10]")
    assert compared.returncode == 0, compared.stderr
    assert "coverage@10 is no mean over users" in compared.stdout


@pytest.mark.slow
def test_two_processes_are_one(script, pair):
    common = (*SMALL, CHOSEN, "data.reader.num_users=149", "trainer.precision=64-true")
    one = ("trainer.devices=1", "data.batch_size=60", "hydra.run.dir=run1")
    done = script("train", *common, *one)
    assert done.returncode == 0, done.stderr
    two = ("trainer.devices=2", "data.batch_size=30", "hydra.run.dir=run2")
    pair(script, "train", *common, *two)
    for part in ("val", "test"):
        one, two = (script.metrics(run)[part] for run in ("run1", "run2"))
        assert "coverage@10" in one and two == pytest.approx(one, rel=1e-12)
