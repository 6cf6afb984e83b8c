"""The planted world: its promises hold, and its oracle is the best there is."""

import numpy as np
import polars as pl
import torch

from twotower.data.readers.synthetic import Synthetic
from twotower.models.oracle import Oracle
from twotower.retrieval.exact import target_ranks


def test_world_keeps_its_promises(tmp_path):
    frames = Synthetic(3000, 300, 5, 12, 20, seed=0).read(tmp_path)
    rows = frames.interactions
    assert rows.select("user", "item").is_unique().all()  # without replacement
    assert (
        rows.group_by("user").agg(pl.col("time").diff().drop_nulls().min())["time"].min() > 0
    )  # time goes on
    assert rows["user"].n_unique() == 3000
    assert 17 <= rows.group_by("user").len()["len"].median() <= 20
    size = (
        rows.join(frames.items, on="item").group_by("category").len().sort("len")["len"].to_list()
    )
    assert size[-1] > 3 * size[0]  # a head and a tail
    popularity = rows.group_by("item").len().sort("len")["len"].to_numpy()
    assert popularity[-30:].sum() > 3 * popularity[:30].sum()  # popularity bias


def test_same_seed_same_world_and_chunks_are_seamless(tmp_path, monkeypatch):
    first = Synthetic(100, 50, 3, 6, 8, seed=4).read(tmp_path)
    assert first.interactions.equals(
        Synthetic(100, 50, 3, 6, 8, seed=4).read(tmp_path).interactions
    )
    assert not first.interactions.equals(
        Synthetic(100, 50, 3, 6, 8, seed=5).read(tmp_path).interactions
    )
    monkeypatch.setattr("twotower.data.readers.synthetic.USERS_PER_CHUNK", 30)
    chunked = Synthetic(100, 50, 3, 6, 8, seed=4).read(tmp_path)
    assert chunked.users["user"].to_list() == list(range(100))
    assert chunked.interactions["user"].unique().sort().to_list() == list(range(100))


def test_latents_are_the_true_log_probabilities(tmp_path):
    """First choices of many users of one kind follow ``softmax(<user, item>)``."""
    frames = Synthetic(20_000, 30, 2, 3, 5, seed=2).read(tmp_path)
    user, item = (frames.latents[side][1].to_numpy() for side in ("user", "item"))
    p = np.exp(user @ item.T)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-4)
    first = frames.interactions.group_by("user", maintain_order=True).first()
    column = {int(raw): index for index, raw in enumerate(frames.items["item"])}
    count = np.bincount([column[i] for i in first["item"]], minlength=30)
    np.testing.assert_allclose(count / len(first), p[first["user"].to_numpy()].mean(0), atol=0.006)


def test_no_ranking_beats_the_oracle(data):
    oracle = Oracle()
    item = torch.cat([oracle.encode_item(chunk) for chunk in data.corpus(torch.device("cpu"))])
    hits = {0.0: 0, 1.0: 0, 4.0: 0}
    torch.manual_seed(0)
    for index in data.test_dataloader():
        batch = data.eval_batch(index)
        for noise in hits:
            user = oracle.encode_user(batch.user)
            rank = target_ranks(
                user + noise * torch.randn_like(user),
                item,
                batch.target,
                batch.seen_row,
                batch.seen_item,
            )
            hits[noise] += int((rank <= 5).sum())
    assert hits[0.0] > hits[4.0] and hits[0.0] >= hits[1.0]
