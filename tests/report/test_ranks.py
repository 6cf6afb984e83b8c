"""Values of users from ranks, by hand and against the metrics of a run."""

import numpy as np
import polars as pl
import pytest

from tests.helpers.runs import SMALL
from tests.report.world import METRICS
from twotower.metrics.ndcg import NDCG
from twotower.metrics.recall import Recall
from twotower.report import ranks as report_ranks
from twotower.report.keep import without_items
from twotower.report.ranks import Ranks, per_user, read_ranks


def table(user, rank, category=None):
    columns = (user, np.arange(len(user)), category or np.zeros(len(user)), rank)
    return Ranks(*(np.array(column, dtype=np.int32) for column in columns))


@pytest.fixture
def three():
    """User 2 has ranks 1 and 12, user 5 has 3, user 7 has 2, 60 and 700."""
    return table([2, 2, 5, 7, 7, 7], [1, 12, 3, 2, 60, 700], [0, 1, 1, 0, 0, 1])


@pytest.mark.parametrize("chunk", [1, 2, 8192])
def test_users_with_several_targets_by_hand(three, monkeypatch, chunk):
    monkeypatch.setattr(report_ranks, "USERS_PER_CHUNK", chunk)
    assert per_user(three, METRICS["hit_rate@10"]).tolist() == [1, 1, 1]
    assert per_user(three, Recall(1, [50])).tolist() == pytest.approx([1, 1, 1 / 3])
    assert per_user(three, METRICS["mrr"]).tolist() == pytest.approx([1, 1 / 3, 1 / 2])
    # log2(2) = 1, log2(4) = 2: 1 of the ideal 1 + .6309; 1/2 of 1;
    # .6309 of the ideal 1 + .6309 + .5
    assert per_user(three, NDCG(1, [10])).tolist() == pytest.approx(
        [1 / 1.6309, 0.5, 0.6309 / 2.1309], abs=1e-4
    )


def test_a_category_counts_the_users_that_have_targets_there(three):
    first, second = three.of(three.category == 0), three.of(three.category == 1)
    assert per_user(second, METRICS["hit_rate@10"]).tolist() == [0, 1, 0]  # ranks 12, 3, 700
    assert per_user(first, METRICS["mrr"]).tolist() == [1, 1 / 2]  # user 5 has none there


def test_a_run_keeps_ranks_that_give_its_own_metrics(script):
    """Users of the temporal split have several targets each."""
    settings = (
        "data/split=temporal",
        "trainer.max_epochs=1",
        "data.reader.interactions_per_user=12",
    )
    run = script("train", *SMALL, *settings, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    folder, record = script.folder / "run", script.metrics("run")
    ranks = read_ranks(folder, {}, {})
    assert len(ranks.user) > len(np.unique(ranks.user))  # some users have several targets
    for name, metric in METRICS.items():
        mean = per_user(ranks, metric).mean()
        assert mean == pytest.approx(record["test"][name], abs=1e-12), name
    sizes = [category["train_interactions"] for category in record["categories"]]
    assert sizes == sorted(sizes, reverse=True) and ranks.category.max() < len(sizes)
    assert record["settings"]["trainer.num_processes"] == 1
    assert record["settings"]["data.batch_size"] == 64
    columns = pl.read_parquet_schema(folder / "test_ranks.parquet")
    assert set(columns.values()) == {pl.Int32}
    assert str(script.folder) not in str(record["settings"])  # no path


def test_ranks_without_items_count_each_users_targets():
    ranks = table([2, 2, 5, 7, 7, 7], [1, 12, 3, 2, 60, 700], [0, 1, 1, 0, 0, 1])
    bare = Ranks(*(column.to_numpy() for column in without_items(ranks)))
    assert bare.user.tolist() == [0, 0, 1, 2, 2, 2]
    assert bare.item.tolist() == [0, 1, 0, 0, 1, 2]
    assert bare.rank.tolist() == ranks.rank.tolist() and set(bare.category.tolist()) == {-1}
    assert (per_user(bare, METRICS["mrr"]) == per_user(ranks, METRICS["mrr"])).all()
