"""Users who return to items: evaluation and serving hide the same; each target counts once."""

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.frames import make_frames
from tests.helpers.retriever import make_retriever
from tests.helpers.runs import SMALL
from twotower.data.batches.present import present_seen
from twotower.data.batches.rows import hidden, targets
from twotower.data.frames import WithoutFiles
from twotower.data.splits import LeaveLastOut, Temporal
from twotower.errors import UserError
from twotower.metrics.hit_rate import HitRate
from twotower.metrics.mrr import MRR
from twotower.metrics.ndcg import NDCG
from twotower.metrics.recall import Recall
from twotower.retrieval.exact import encode_users, target_ranks, top_k
from twotower.types import HIDDEN_RANK, EvalIndex

EXTRA_ITEMS = 3  # known to nobody before the last fifth of the time


class Regulars(WithoutFiles):
    """30 users click or buy 12 items, again and again."""

    name = "regulars"

    def __init__(self, behaviours=()):
        self.behaviours = behaviours

    def read(self, data_dir):
        rng = np.random.default_rng(0)
        rows = []
        for user in range(30):
            own = rng.choice(12, 6, replace=False)
            for time in range(12):
                cold = 12 + rng.integers(EXTRA_ITEMS)
                item = cold if time >= 10 and rng.random() < 0.3 else rng.choice(own)
                rows.append((user, int(item), 100 * time + user, int(rng.integers(2))))
        frames = make_frames(rows, columns=("user", "item", "time", "behaviour"))
        if not self.behaviours:
            return frames._replace(interactions=frames.interactions.drop("behaviour"))
        return frames._replace(behaviours=self.behaviours)


def world(folder, mask_seen, split, behaviours=("click", "buy")):
    """A click and a purchase of one item are a repeat even if each kind occurs once."""
    duplicates = "first" if behaviours else "all"
    several = Temporal(700, 900, 0) if split == "several" else LeaveLastOut(1)
    data = make_data(
        folder, Regulars(behaviours), duplicates=duplicates, split=several, mask_seen=mask_seen
    )
    data.setup()
    return data


def whole(data, part):
    """All users of a part as one batch."""
    position, num = data.tables[f"position/{part}"].long(), data.tables[f"targets/{part}"].long()
    return data.eval_batch(EvalIndex(position, num))


def test_targets_are_distinct_by_hand():
    tables = {"interactions/item": torch.tensor([7, 5, 5, 7, 5, 9, 9, 3])}
    index = EvalIndex(torch.tensor([1, 5, 7]), torch.tensor([4, 2, 1]))
    expected = [[5, -1, 7, -1], [9, -1, -1, -1], [3, -1, -1, -1]]
    assert targets(tables, index).tolist() == expected


def test_what_is_hidden_by_hand():
    row, item = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([4, 5, 4, 4, 6])
    target = torch.tensor([[5, 9], [4, -1]])
    for mask_seen, expected in {
        True: [(0, 4), (0, 5), (0, 4), (1, 4), (1, 6)],
        False: [],
        "except_targets": [(0, 4), (0, 4), (1, 6)],  # 4 is a target of user 1 alone
    }.items():
        pairs = [side.tolist() for side in hidden(row, item, target, mask_seen)]
        assert list(zip(*pairs, strict=True)) == expected
    none = torch.zeros(2, 0, dtype=torch.long)
    assert [side.tolist() for side in hidden(row, item, none, "except_targets")] == [
        row.tolist(),
        item.tolist(),
    ]


@pytest.mark.parametrize(("split", "behaviours"), [("last", ()), ("several", ("click", "buy"))])
@pytest.mark.parametrize("mask_seen", [True, False, "except_targets"])
def test_lists_show_what_the_evaluation_found(tmp_path, mask_seen, split, behaviours):
    data = world(tmp_path, mask_seen, split, behaviours)
    for name in ("popularity", "mind"):
        model = make_retriever(data, name)
        num_hidden = 0
        for part in ("val", "test"):
            batch = whole(data, part)
            user = encode_users(model.model, batch.user)
            rank = target_ranks(
                user, model.item_vectors, batch.target, batch.seen_row, batch.seen_item
            )
            num_hidden += int((rank == HIDDEN_RANK).sum())
            for row in range(0, len(rank), 3):
                raw = model.users.raw[int(batch.user_index[row])]
                found = model.recommend(raw, len(model.items.raw), before=part)
                place = dict(zip(found["item"], found["rank"], strict=True))
                for target, own in zip(batch.target[row].tolist(), rank[row].tolist(), strict=True):
                    if own == HIDDEN_RANK:
                        assert model.items.raw[target] not in place
                    elif own:
                        assert place[model.items.raw[target]] <= own <= len(found)
        assert (num_hidden > 0) == (mask_seen is True)


@pytest.mark.parametrize("mask_seen", [True, "except_targets"])
def test_without_a_held_out_part_all_that_was_seen_is_hidden(tmp_path, mask_seen):
    """In lists and in an export alike: nobody knows what a user comes back to."""
    model = make_retriever(world(tmp_path, mask_seen, "several"), "popularity")
    seen = present_seen(model.data, torch.arange(len(model.users.raw)))
    for user, own in zip(model.users.raw, seen, strict=True):
        assert set(own.tolist()) == set(model.person(user).items.tolist())
        shown = model.recommend(user, len(model.items.raw))["item"]
        assert set(shown) == set(model.items.raw) - set(model.items.raw[own.tolist()])


def test_an_export_is_compared_by_the_same_mask(tmp_path):
    parity = pytest.importorskip("twotower.export.parity")
    for mask_seen in (True, False, "except_targets"):
        data = world(tmp_path, mask_seen, "several")
        model = make_retriever(data, "mind")
        sample = parity.take_sample(model.model, data, model.item_vectors, 99, 5, seed=0)
        batch = whole(data, "test")
        user = encode_users(model.model, batch.user)
        pairs = (batch.seen_row, batch.seen_item)
        assert sample.exact.tolist() == [
            [-1 if score == -torch.inf else item for score, item in zip(*best, strict=True)]
            for best in zip(
                *(x[:, :5].tolist() for x in top_k(user, model.item_vectors, *pairs, 6)),
                strict=True,
            )
        ]
        for row, items in enumerate(sample.seen):
            assert items.tolist() == batch.seen_item[batch.seen_row == row].tolist()
        rank = target_ranks(user, model.item_vectors, batch.target, *pairs)
        assert sample.hit_rate == pytest.approx(
            ((rank > 0) & (rank <= 5)).any(1).double().mean().item()
        )


@pytest.mark.parametrize("mask_seen", [True, False, "except_targets"])
def test_metrics_count_each_distinct_target_once(tmp_path, mask_seen):
    data = world(tmp_path, mask_seen, "several")
    batch, raw = whole(data, "test"), data.tables["interactions/item"]
    first, num = data.tables["position/test"], data.tables["targets/test"]
    assert len(num) and int(num.max()) > 2
    rank = torch.zeros_like(batch.target)
    for row, (start, count) in enumerate(zip(first.tolist(), num.tolist(), strict=True)):
        own = [item for item in batch.target[row].tolist() if item >= 0]
        assert sorted(own) == sorted(set(raw[start : start + count].tolist()))
        rank[row, : len(own)] = torch.arange(1, len(own) + 1)  # the best possible
        assert int(batch.group[row, :, 0].sum()) == len(own)
    everybody = (rank > 0)[:, :, None]
    for metric in (NDCG(1, [10]), Recall(1, [10]), HitRate(1, [10])):
        metric.update(rank, everybody)
        assert metric.compute().item() == pytest.approx(1)


def test_a_hidden_target_is_a_miss_at_every_cutoff():
    rank, group = torch.tensor([[HIDDEN_RANK, 2], [HIDDEN_RANK, 0]]), torch.ones(2, 2, 1)
    values = {}
    for metric in (HitRate(1, [10**12]), Recall(1, [10**12]), NDCG(1, [10**12]), MRR(1)):
        metric.update(rank, group)
        values[metric.name] = metric.compute().item()
    # user 0 finds one of two targets, at rank 2: 1 / log2(3) of 1 + 1 / log2(3); user 1 finds none
    assert values == pytest.approx(
        {"hit_rate": 1 / 2, "recall": 1 / 4, "ndcg": 0.63093 / 1.63093 / 2, "mrr": 1 / 4}, abs=1e-5
    )


def test_a_run_counts_the_targets_that_the_mask_hides(script, tmp_path):
    rows = [
        f"{user},{item},{time}"
        for time in range(6)
        for user in range(12)
        for item in [f"i{(user + time) % 4}"]
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    mine = (
        "data=table",
        "data.reader.interactions=clicks.csv",
        "data.duplicates=all",
        "data.k_core=0",
    )
    small = ("model=popularity", "callbacks.diagnostics=null", *mine)
    run = script("train", *small, "hydra.run.dir=all")
    assert run.returncode == 0, run.stderr
    test = script.metrics("all")["test"]
    # four items in turn, so the last two of six clicks are repeats
    assert test["hidden_targets"] == 1 and test["hit_rate@100"] == test["mrr"] == 0
    assert "100.0% of targets were seen before and are hidden" in " ".join(run.stdout.split())
    ranks = pl.read_parquet(tmp_path / "all" / "test_ranks.parquet")
    assert (ranks["rank"] == HIDDEN_RANK).all() and len(ranks) == 12
    spared = script("train", *small, "data.mask_seen=except_targets", "hydra.run.dir=spared")
    assert spared.returncode == 0, spared.stderr
    record = script.metrics("spared")
    assert record["test"]["hidden_targets"] == 0 and record["test"]["hit_rate@10"] == 1
    assert record["settings"]["data.mask_seen"] == "except_targets"
    answer = script("recommend", "ckpt_path=spared/checkpoints/best.ckpt", "user_id=3", "k=4")
    assert "data.mask_seen=except_targets" in answer.stdout, answer.stderr
    refused = script("train", *small, "data.mask_seen=sometimes")
    assert (
        "data.mask_seen must be a valid boolean or 'except_targets', got 'sometimes'"
        in refused.stderr
    )


def test_the_oracle_is_a_bound_whatever_the_mask(script):
    """Nobody of the synthetic world takes an item twice, and a ranking may know that."""
    oracles = []
    for mask_seen in ("true", "false"):
        run = script(
            "train", *SMALL, "model=popularity", f"data.mask_seen={mask_seen}", "hydra.run.dir=run"
        )
        assert run.returncode == 0, run.stderr
        oracles.append(script.metrics("run")["oracle"])
    assert oracles[0] == oracles[1]


def test_an_unknown_mask_is_refused(tmp_path):
    with pytest.raises(UserError, match="true, false or except_targets, got 'no'"):
        make_data(tmp_path, mask_seen="no")
