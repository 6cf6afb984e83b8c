"""Recommendations are what the evaluation ranked; new users and items follow the stated policy."""

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.models import MODELS
from tests.helpers.retriever import make_retriever
from twotower.data.prepare.newcomers import from_values, new_users
from twotower.data.splits import Temporal
from twotower.errors import UserError
from twotower.retrieval.exact import target_ranks
from twotower.serve.lookup import Lookup
from twotower.types import EvalIndex, Feature

TINY = {
    "interactions/user": torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]),
    "interactions/item": torch.tensor([0, 1, 0, 1, 2, 2, 1, 0]),
    "offset": torch.tensor([0, 2, 5, 8]),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("part", [pytest.param("val", marks=pytest.mark.slow), "test"])
def test_lists_are_what_the_evaluation_ranked(name, part, data):
    model = make_retriever(data, name)
    loader = data.val_dataloader() if part == "val" else data.test_dataloader()
    for batch in map(data.eval_batch, list(loader)[:3]):
        user = model.model.encode_user(batch.user).detach().float()
        ranks = target_ranks(
            user, model.item_vectors, batch.target, batch.seen_row, batch.seen_item
        )[:, 0]
        for row, rank in enumerate(ranks.tolist()):
            found = model.recommend(model.users.raw[int(batch.user_index[row])], 40, before=part)
            target = found.filter(item=model.items.raw[int(batch.target[row, 0])])
            ties = (
                (found["score"] - target["score"][0]).abs().le(1e-6).sum()
            )  # ranks count them against the model
            assert rank - ties + 1 <= target["rank"][0] <= rank
            assert ties == 1 or name == "popularity"


def test_what_a_user_has_seen_is_left_out_or_marked(data):
    model = make_retriever(data)
    user = model.users.raw[7]
    rows = data.tables["interactions/item"][
        data.tables["offset"][7] : data.tables["offset"][8]
    ].tolist()
    own = [model.items.raw[row] for row in rows]  # of training, validation and test
    fresh, all_items = model.recommend(user, 40), model.recommend(user, 40, seen=True)
    assert set(fresh["item"]) == set(model.items.raw) - set(own) and not fresh["seen"].any()
    assert sorted(all_items.filter("seen")["item"]) == sorted(own) and len(all_items) == 40
    assert fresh["rank"].to_list() == list(range(1, len(fresh) + 1)) and fresh["score"].is_sorted(
        descending=True
    )
    assert all_items.filter(~pl.col("seen"))["item"].equals(fresh["item"])
    assert model.history(user, 3)["item"].to_list() == own[:-4:-1]  # the latest first
    data.mask_seen = False
    assert model.recommend(user, 40).equals(all_items)


def test_a_new_user_with_the_same_history_gets_the_same_where_nothing_else_counts(data):
    model = make_retriever(data, "youtube_dnn")
    user = model.users.raw[3]
    own = model.history(user, 100)["item"].to_list()[::-1]
    assert model.recommend_history(own, 9).equals(model.recommend(user, 9))
    assert not model.recommend_history(own[:1], 9)["item"].equals(
        model.recommend_history([], 9)["item"]
    )
    assert model.reads_history and not make_retriever(data, "mf").reads_history
    torch.testing.assert_close(model.user_vector(history=own), model.user_vector(user))


def test_new_users_and_items_have_their_features_and_the_cold_vector_of_an_id(data):
    model = make_retriever(data)
    frames = data.reader.read(data.preparation.data_dir)
    raw = frames.items.filter(item=model.items.raw[5]).to_dicts()[0]
    features = data.item_features(torch.tensor([5]))
    expected = model.model.encode_item({**features, "item_id": torch.tensor([0])})[0]
    new = model.item_vector(features={name: raw[name] for name in frames.item_features})
    torch.testing.assert_close(new, expected.detach())
    assert not torch.allclose(new, model.item_vector(model.items.raw[5]))
    assert model.nearest(model.item_vector(model.items.raw[5]), 1)["item"][0] == model.items.raw[5]
    raw = frames.users.filter(user=model.users.raw[2]).to_dicts()[0]
    own = data.user_features(data.tables["offset"][3:4], torch.tensor([2]))
    expected = model.model.encode_user({**own, "user_id": torch.tensor([0])})[0]
    history = model.history(model.users.raw[2], 100)["item"].to_list()[::-1]
    new = model.user_vector(
        history=history, features={name: raw[name] for name in frames.user_features}
    )
    torch.testing.assert_close(new, expected.detach())


def test_values_by_hand():
    features = (
        Feature("item_id", "categorical", 9),
        Feature("tags", "multi", 3),
        Feature("year", "categorical", 3),
        Feature("price", "numeric", 0),
    )
    encodings = {
        "item/tags": pl.DataFrame({"value": ["a", "b"]}),
        "item/year": pl.DataFrame({"value": [1995, 1999]}),
        "item/price": pl.DataFrame({"mean": [2.0], "std": [4.0]}),
    }
    found = from_values(
        "item", features, {"tags": ["b", "new", "a"], "year": "1999", "price": 10}, encodings
    )
    assert {name: value.tolist() for name, value in found.items()} == {
        "item_id": [0],
        "tags": [[2, 0, 1]],
        "year": [2],
        "price": [2.0],
    }
    nothing = from_values("item", features, {}, encodings)
    assert {name: value.tolist() for name, value in nothing.items()} == {
        "item_id": [0],
        "tags": [[0]],
        "year": [0],
        "price": [0.0],
    }
    with pytest.raises(
        UserError, match="features: colour is none of this data set's; there are tags, year, price"
    ):
        from_values("item", features, {"colour": 1}, encodings)
    assert from_values("item", features, {"price": np.int64(3)}, encodings)["price"].equal(
        from_values("item", features, {"price": 3}, encodings)["price"]
    )
    with pytest.raises(UserError, match=r"features\.price must be a number"):
        from_values("item", features, {"price": "10"}, encodings)


def test_similar_is_the_cosine_without_the_item_itself(data):
    model = make_retriever(data, "mf")  # vectors of different lengths
    vectors = model.item_vectors
    cosine = vectors @ vectors[4] / vectors.norm(dim=1) / vectors[4].norm()
    found = model.similar(model.items.raw[4], 39)
    order = [row for row in cosine.argsort(descending=True).tolist() if row != 4]
    assert found["item"].to_list() == [model.items.raw[row] for row in order]
    torch.testing.assert_close(torch.tensor(found["score"].to_list()), cosine[order])
    with pytest.raises(UserError, match="k=40: give a whole number from 1 to 39"):
        model.similar(model.items.raw[4], 40)


def test_ids_by_hand():
    numbers = Lookup(
        pl.Series([10, 20, 35]), "item", pl.Series(["Heat (1995)", None, "Star [Wars"])
    )
    assert [numbers.find(value) for value in (20, "20", " 35", "2O", 7, 1.5, "9" * 30)] == [
        1,
        1,
        2,
        None,
        None,
        None,
        None,
    ]
    assert numbers.near("star [w") == ["35 (Star [Wars)"] and numbers.near(33) == ["35", "20", "10"]
    strings = Lookup(pl.Series(["B00A1", "42"]), "user")
    assert strings.find(42) == 1 and strings.find("b00a1") is None
    with pytest.raises(
        UserError,
        match=r"user_id=B00A2: there is no such user among the 2 of these data; "
        r"did you mean B00A1\?",
    ):
        strings.row("B00A2")


def test_numbers_of_numpy_and_torch_are_ids():
    numbers, strings = (
        Lookup(pl.Series([7, 20]), "item"),
        Lookup(pl.Series(["7", "8.0", "x"]), "item"),
    )
    for value in (
        20,
        20.0,
        np.int64(20),
        np.uint8(20),
        np.float32(20),
        np.str_("20"),
        np.array(20),
        torch.tensor(20),
    ):
        assert numbers.find(value) == 1
    for value in (7, 7.0, np.int32(7), np.float64(7), np.str_("7"), torch.tensor(7)):
        assert strings.find(value) == 0
    assert strings.find(8.0) == 1 and strings.find(np.str_("x")) == 2
    for value in (np.float64(20.5), np.float64("nan"), np.inf, None, "²", "٢٠", "2_0", b"20"):
        assert numbers.find(value) is None
    with pytest.raises(UserError, match=r"item_id=20\.5: there is no such item"):
        numbers.row(np.float64(20.5))


def test_numpy_numbers_in_every_question(data):
    model = make_retriever(data)
    user, items = model.users.raw[3], model.items.raw[:3].to_numpy()
    assert model.recommend(np.int64(user), np.int32(5)).equals(model.recommend(user, 5))
    assert model.recommend(np.float64(user), np.int64(5), np.bool_(True)).equals(
        model.recommend(user, 5, True)
    )
    assert model.recommend_history(items, np.int8(5)).equals(
        model.recommend_history(items.tolist(), 5)
    )
    assert torch.equal(model.user_vector(history=items), model.user_vector(history=items.tolist()))
    assert model.similar(items[0], np.int64(5)).equals(model.similar(int(items[0]), 5))
    assert model.history(np.int64(user), np.int64(2)).equals(model.history(user, 2))


def test_why_an_id_is_not_there():
    rest = pl.DataFrame({"item": [8, 9], "clicked": [False, True]})
    lookup = Lookup(pl.Series([7]), "item", rest=rest)
    with pytest.raises(
        UserError, match="^item_id=8: the table of items has it, but no interaction does"
    ):
        lookup.row("8")
    with pytest.raises(
        UserError,
        match="^item_id=9: the filters and the split of these data keep none of its interactions",
    ):
        lookup.row(np.int64(9))
    with pytest.raises(UserError, match="^item_id=10: there is no such item"):
        lookup.row(10)


def test_bad_questions(data):
    model = make_retriever(data)
    for k in (0, 41, True, 1.5, np.int64(41), np.bool_(True), "5", None):
        with pytest.raises(UserError, match="give a whole number from 1 to 40"):
            model.recommend(model.users.raw[0], k)
    known = model.items.raw[0]
    with pytest.raises(UserError, match=r"^history=\[…,999\]: there is no such item"):
        model.recommend_history([known, 999])
    for history in ("77", 7, None):
        with pytest.raises(UserError, match="give a list of item ids"):
            model.recommend_history(history)
    with pytest.raises(UserError, match="takes user_id, or"):
        model.user_vector()
    with pytest.raises(UserError, match="takes item_id, or"):
        model.item_vector(1, features={})
    with pytest.raises(UserError, match="before must be one of val, test"):
        model.recommend(model.users.raw[0], before="train")


def test_new_users_after_some_clicks():
    """Users 1 and 2 are new; in test 1 has its last click, 2 all three."""
    position, num_targets = torch.tensor([1, 4, 5]), torch.tensor([1, 1, 3])
    for clicks, expected in ((0, ([5], [3])), (1, ([6], [2])), (2, ([4, 7], [1, 1]))):
        found = new_users(TINY, position, num_targets, 1, clicks)
        assert tuple(column.tolist() for column in found) == expected
    with pytest.raises(UserError, match="clicks=3"):
        new_users(TINY, position, num_targets, 1, 3)


def test_cold_and_warm_targets_and_new_users_after_clicks(tmp_path):
    data = make_data(tmp_path, split=Temporal(0.05, 0.1, 0))
    data.setup()
    num = data.schema.num_train_items
    assert num < data.schema.num_items and data.meta["num_train_users"] < 60
    batch = data.eval_batch(next(iter(data.test_dataloader())))
    warm, cold = (data.group_names.index(name) for name in ("warm", "cold"))
    assert (
        torch.equal(batch.group[:, :, cold], batch.target >= num) and batch.group[:, :, cold].any()
    )
    assert (
        torch.equal(batch.group[:, :, warm], (batch.target >= 0) & (batch.target < num))
        and batch.group[:, :, warm].any()
    )
    data.schema = data.schema._replace(num_train_items=data.schema.num_items)
    batch = data.eval_batch(next(iter(data.test_dataloader())))
    assert not batch.group[
        :, :, [warm, cold]
    ].any()  # training knows all items: there is nothing to tell apart
    data.evaluate_after(2, None)
    for index in data.test_dataloader():
        taken = data.eval_batch(EvalIndex(*index))
        assert (taken.user["user_id"] == 0).all()
        assert ((taken.user["history"] > 0).sum(1) <= 2).all()
        assert torch.bincount(taken.seen_row, minlength=len(taken.user_index)).tolist() == [
            2
        ] * len(taken.user_index)
        for shown in (0, 1, 3):
            data.evaluate_after(2, shown)
            less, columns = data.eval_batch(EvalIndex(*index)), data.options.history_length - shown
            assert (less.user["history"][:, :columns] == 0).all()
            assert torch.equal(
                less.user["history"][:, columns:], taken.user["history"][:, columns:]
            )
            assert torch.equal(less.target, taken.target) and torch.equal(
                less.seen_item, taken.seen_item
            )
        data.evaluate_after(2, None)
