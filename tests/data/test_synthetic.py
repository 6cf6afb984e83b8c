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


def style_covariances(frames, num_categories, num_styles):
    """The covariance of the true style, one-hot, of each category's items, by size."""
    truth = frames.latents["item"][1].to_numpy()[:, :-1]  # one-hot clusters
    style = truth.reshape(len(truth), num_categories, num_styles).sum(1)
    category = frames.items["category"].to_numpy()
    names, counts = np.unique(category, return_counts=True)
    order = names[np.argsort(-counts, kind="stable")]
    return sorted(counts)[::-1], [np.cov(style[category == name].T, bias=True) for name in order]


def test_categories_of_styles_differ_in_size_alone(tmp_path):
    """Shares of 4 categories by Zipf with exponent 2: .70, .18, .08, .04 of 10,000 items."""
    world = Synthetic(500, 10_000, 4, 24, 20, 0, category_exponent=2.0, num_styles=3)
    frames = world.read(tmp_path)
    counts, covariances = style_covariances(frames, 4, 3)
    np.testing.assert_allclose(counts, [7024, 1756, 780, 439], rtol=0.1)
    equal = np.eye(3) / 3 - 1 / 9  # of three styles with equal shares
    for covariance in covariances:
        np.testing.assert_allclose(covariance, equal, atol=0.03)
    rows = frames.interactions.join(frames.items, on="item").group_by("category").len()
    share = rows.sort("len", descending=True)["len"].to_numpy() / len(frames.interactions)
    np.testing.assert_allclose(share, [0.70, 0.18, 0.08, 0.04], atol=0.02)


def test_a_style_exponent_gives_each_category_another_covariance(tmp_path):
    """Shares of styles by Zipf with exponent 2: .73, .18, .08, in another order in each."""
    world = Synthetic(500, 10_000, 4, 24, 20, 0, num_styles=3, style_exponent=2.0)
    _, covariances = style_covariances(world.read(tmp_path), 4, 3)
    first, second = np.roll([36 / 49, 9 / 49, 4 / 49], 0), np.roll([36 / 49, 9 / 49, 4 / 49], 1)
    np.testing.assert_allclose(covariances[0], np.diag(first) - np.outer(first, first), atol=0.03)
    np.testing.assert_allclose(
        covariances[1], np.diag(second) - np.outer(second, second), atol=0.03
    )


def test_users_prefer_the_same_styles_in_all_categories(tmp_path):
    """And the truth is a probability: of a user's choices in any two categories alike."""
    frames = Synthetic(50, 300, 3, 24, 20, 0, num_styles=4).read(tmp_path)
    user, item = (frames.latents[side][1].to_numpy() for side in ("user", "item"))
    np.testing.assert_allclose(np.exp(user @ item.T).sum(1), 1, rtol=1e-4)
    preference = np.exp(user[:, :-1]).reshape(50, 3, 4)
    preference /= preference.sum(2, keepdims=True)
    np.testing.assert_allclose(preference[:, 0], preference[:, 2], rtol=1e-4)
    assert preference.std(0).min() > 0.05  # users differ
