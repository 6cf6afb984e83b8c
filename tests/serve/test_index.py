"""Lists of users from the index of an export."""

import numpy as np
import polars as pl
import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.errors import UserError
from twotower.serve import index as index_module
from twotower.serve.index import IndexedItems
from twotower.serve.load import load

faiss = pytest.importorskip("faiss")
ITEMS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)


def indexed():
    index = faiss.IndexFlatIP(2)
    index.add(ITEMS)
    return IndexedItems(index)


def test_hidden_items_are_left_out_and_each_stands_once():
    user = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])  # two interests each
    hidden_row, hidden_item = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2])
    score, item = indexed().best(user, hidden_row, hidden_item, 3)
    # user 0 without item 1: 2 * 0.8 by the second interest, then 1 by the first, then 0
    assert item[0].tolist() == [2, 0, 3] and score[0].tolist() == pytest.approx([1.6, 1, 0])
    assert item[1, :2].tolist() == [1, 3] and score[1].tolist() == [0, -1, -torch.inf]


def test_long_lists_and_long_histories_are_found_in_a_graph():
    generator = torch.Generator().manual_seed(0)
    items, user = (torch.randn(num, 8, generator=generator) for num in (5000, 20))
    graph = faiss.IndexHNSWFlat(8, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = 16
    graph.add(items.numpy())
    best = (user @ items.T).topk(600).indices
    for k, num_hidden in ((500, 0), (10, 490)):
        hidden_row = torch.arange(20).repeat_interleave(num_hidden)
        hidden_item = best[:, :num_hidden].flatten()
        score, found = IndexedItems(graph).best(user, hidden_row, hidden_item, k)
        wanted = best[:, num_hidden : num_hidden + k]
        assert (found[:, :, None] == wanted[:, None]).any(2).float().mean() > 0.97
        assert (score > -torch.inf).all()
    assert graph.hnsw.efSearch == 16


def test_a_user_with_a_long_history_does_not_make_the_others_searches_long(monkeypatch):
    index, asked = faiss.IndexFlatIP(2), []
    generator = torch.Generator().manual_seed(0)
    items, user = (torch.randn(num, 2, generator=generator) for num in (300, 5))
    index.add(items.numpy())
    indexed = IndexedItems(index)
    search = indexed._search
    note = lambda users, num: asked.append((len(users), num)) or search(users, num)  # noqa: E731
    monkeypatch.setattr(indexed, "_search", note)
    monkeypatch.setattr(index_module, "MAX_FOUND", 16)  # two users of four items
    hidden_item = (user @ items.T)[3].topk(250).indices
    score, found = indexed.best(user, torch.full((250,), 3), hidden_item, 3)
    assert asked == [(4, 3), (1, 253)]
    hidden = (user @ items.T).index_fill(0, torch.tensor([3]), -torch.inf)
    hidden[3] = (user @ items.T)[3].index_fill(0, hidden_item, -torch.inf)
    assert found.equal(hidden.topk(3).indices) and (score > -torch.inf).all()


def test_lists_from_an_index_are_those_of_all_vectors(script):
    run = script(
        "train", *SMALL, "model=mind", "model.dim=8", "trainer.max_epochs=1", "hydra.run.dir=run"
    )
    assert run.returncode == 0, run.stderr
    for kind in (("index=flat",), ("index=ivf_pq", "index.num_lists=2", "index.num_bits=4")):
        settings = (*kind, f"output={kind[0][6:]}", "parity.num_users=20")
        run = script("export", "ckpt_path=run", *settings)
        assert run.returncode == 0, run.stderr
    lists = {}
    for name in ("none", "flat", "ivf_pq"):
        given = [f"export={name}"] * (name != "none")
        run = script("recommend", "ckpt_path=run", f"output={name}.parquet", *given)
        assert run.returncode == 0, run.stderr
        lists[name] = pl.read_parquet(script.folder / f"{name}.parquet")
    assert lists["flat"].drop("score").equals(lists["none"].drop("score"))
    np.testing.assert_allclose(lists["flat"]["score"], lists["none"]["score"], rtol=1e-5)
    assert lists["ivf_pq"]["user"].n_unique() == lists["none"]["user"].n_unique()
    both = lists["ivf_pq"].join(lists["none"], on=["user", "item"])
    assert 0.3 < len(both) / len(lists["none"]) < 1  # approximate
    shown = script("recommend", "ckpt_path=run", "user_id=1", "export=flat", "format=json")
    assert shown.returncode == 0, shown.stderr
    paths = {"data_dir": script.folder / "data", "cache_dir": script.folder / "cache"}
    model = load(script.folder / "run", **paths, export=script.folder / "flat")
    assert model.recommend(1)["item"].to_list() == lists["none"].filter(user=1)["item"].to_list()
    assert "item_vectors" not in vars(model)  # none were computed
    for settings, said in (
        (("user_id=1", "export=run"), "export=run: it has no index.faiss: name an export"),
        (("item_id=1", "export=flat"), "leave it out with item_id"),
        (("user_id=1", "export=flat", "where=category=x"), "leave out export="),
    ):
        refused = script("recommend", "ckpt_path=run", *settings)
        assert refused.returncode == 1 and said in refused.stderr
    (script.folder / "flat/index.faiss").write_bytes(b"no index")
    refused = script("recommend", "ckpt_path=run", "user_id=1", "export=flat")
    assert refused.returncode == 1 and "export=flat cannot be read" in refused.stderr
    other = script(
        "train",
        *SMALL,
        "model=mind",
        "model.dim=8",
        "trainer.max_epochs=1",
        "seed=1",
        "hydra.run.dir=other",
    )
    assert other.returncode == 0, other.stderr
    with pytest.raises(UserError, match="is of another checkpoint or other data"):
        load(script.folder / "other", **paths, export=script.folder / "ivf_pq")
