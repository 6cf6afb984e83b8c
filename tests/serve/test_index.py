"""Lists of users from the index of an export."""

import numpy as np
import polars as pl
import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.errors import UserError
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
