"""Labels whose numbers are a hash of their text, with tables of a fixed size."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.frames import KEEP_ALL, make_frames
from tests.helpers.models import build
from tests.helpers.retriever import make_retriever
from tests.helpers.table import read, trained_hit_rates
from twotower.data.card.figures import measure
from twotower.data.prepare.hashing import Hashes, hash_numbers, hashed_column
from twotower.data.prepare.newcomers import from_values
from twotower.data.prepare.prepare import prepare
from twotower.errors import UserError
from twotower.layers.embedding_table import hide_ids
from twotower.types import Feature

# the first eight and the next eight hexadecimal digits of the MD5 of "a" and of "7", from md5sum
A, SEVEN = (0x0CC175B9, 0xC0F1B6A8, 0x31C399E2, 0x69772661), (0x8F14E45F, 0xCEEA167A)


def encoding(buckets, num):
    return Hashes({"x": buckets}, num).encoding("x")


def test_numbers_by_hand():
    values = pl.Series(["a", None, "a", "7"])
    found = hash_numbers(values, encoding(10, 2))
    assert found.tolist() == [
        [1 + A[0] % 10, 1 + A[1] % 10],
        [0, 0],
        [1 + A[0] % 10, 1 + A[1] % 10],
        [1 + SEVEN[0] % 10, 1 + SEVEN[1] % 10],
    ]
    assert hash_numbers(pl.Series([7]), encoding(10, 2)).tolist() == [found[3].tolist()]
    four = hash_numbers(pl.Series(["a"]), encoding(2**31 - 2, 4))
    assert four.tolist() == [[1 + number % (2**31 - 2) for number in A]]
    assert hash_numbers(pl.Series([], dtype=pl.String), encoding(10, 3)).shape == (0, 3)


def test_lists_have_the_numbers_of_all_their_values():
    column = pl.Series([["a"], None, ["7", "a"], []], dtype=pl.List(pl.String))
    a, seven = hash_numbers(pl.Series(["a", "7"]), encoding(10, 2)).tolist()
    assert hashed_column(column, encoding(10, 2)).tolist() == [
        [*a, 0, 0], [0] * 4, [*seven, *a], [0] * 4,
    ]  # fmt: skip


def test_values_spread_over_all_buckets():
    found = hash_numbers(pl.int_range(100_000, eager=True), encoding(100, 2))
    count = np.bincount(found.flatten(), minlength=101)
    assert count[0] == 0 and len(count) == 101
    # binomial: 2,000 a bucket with a standard deviation of 44.5
    assert abs(count[1:] - 2000).max() < 5 * 44.5
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.02


def world():
    rows = [(user, item, time, 1.0) for user in (1, 2) for time, item in enumerate((4, 5, 6, 7))]
    users = {"user": [1, 2], "town": ["x", None]}
    items = {"item": [4, 5, 6, 7], "category": ["c"] * 4, "brand": ["a", "7", "7", "new"]}
    return make_frames(rows, users, items)


def test_prepared_data_by_hand():
    options = KEEP_ALL._replace(hashes=Hashes({"user_id": 50, "item_id": 60, "brand": 10}, 2))
    found = prepare(world(), options)
    schema = found.meta["schema"]
    # two items are in training; hashes know the others too
    assert schema["item"][:2] == [["item_id", "categorical", 3], ["item_hash", "multi", 61]]
    assert ["brand", "multi", 11] in schema["item"]
    assert schema["user"][:2] == [["user_id", "categorical", 3], ["user_hash", "multi", 51]]
    assert ["town", "categorical", 2] in schema["user"]
    expected = hash_numbers(pl.Series(["a", "7", "7", "new"]), encoding(10, 2))
    assert found.arrays["item/brand"].tolist() == expected.tolist()
    own = hash_numbers(found.tables["item"]["item"], encoding(60, 2))
    assert found.arrays["item/item_hash"].tolist() == own.tolist()
    assert found.encodings["item/brand"].to_dicts() == [{"buckets": 10, "hashes": 2}]
    assert "hashes" not in KEEP_ALL.plain()
    assert options.plain()["hashes"] == [{"user_id": 50, "item_id": 60, "brand": 10}, 2]


@pytest.mark.parametrize(
    ("buckets", "num", "message"),
    [
        (
            {"brnd": 10},
            2,
            "data.hashed.brnd: there is no such .* choose from user_id, .*brand",
        ),
        ({"price": 10}, 2, "data.hashed.price: price is numeric, only labels can be"),
        ({"brand": 1}, 2, "data.hashed.brand must be .* between 2"),
        ({"brand": 10}, 5, "data.hashes must be .* between 1 and 4"),
    ],
)
def test_settings_that_cannot_be(buckets, num, message):
    frames = world()._replace(item_features={"brand": "categorical", "price": "numeric"})
    frames = frames._replace(items=frames.items.with_columns(price=pl.lit(1.0)))
    options = KEEP_ALL._replace(hashes=Hashes(buckets, num))
    with pytest.raises(UserError, match=message):
        options.check()
        prepare(frames, options)


def test_new_values_have_numbers():
    features = (Feature("item_id", "categorical", 9), Feature("brand", "multi", 11))
    encodings = {"item/brand": encoding(10, 2)}
    a, seven = hash_numbers(pl.Series(["a", "7"]), encoding(10, 2)).tolist()
    for value, expected in (
        *(("a", a), (" a ", a), (7, seven), (7.0, seven), (["a", "7"], a + seven)),
        *((None, [0, 0]), ("", [0, 0]), (" ", [0, 0]), (float("nan"), [0, 0])),
        (True, hash_numbers(pl.Series([True]), encoding(10, 2))[0].tolist()),
    ):
        new = from_values("item", features, {"brand": value}, encodings)
        assert new["brand"].tolist() == [expected], value
        assert new["item_id"].tolist() == [0]


def test_a_name_of_both_sides_is_hashed_where_it_is_a_label():
    frames = world()._replace(user_features={"brand": "numeric"})
    frames = frames._replace(users=frames.users.with_columns(brand=pl.lit(1.5)))
    found = prepare(frames, KEEP_ALL._replace(hashes=Hashes({"brand": 10}, 2)))
    schema = found.meta["schema"]
    assert ["brand", "numeric", 0] in schema["user"] and ["brand", "multi", 11] in schema["item"]
    assert hashed_column(pl.Series([], dtype=pl.List(pl.String)), encoding(10, 2)).shape == (0, 2)


def test_a_table_may_not_take_the_names(tmp_path):
    frames = read(tmp_path, users="user_id,user_hash\n7,x\n9,y\n")
    assert "user_hash" not in frames.user_features


@pytest.fixture
def data(tmp_path):
    found = make_data(
        tmp_path, hashed={"user_id": 30, "item_id": 20, "weekday": 5}, clock_context=["weekday"]
    )
    found.setup()
    return found


def test_towers_read_the_hash_in_place_of_the_id(data):
    model = build("two_tower", data, "model.id_dropout=0")
    assert "user_id" not in model.user_embedding.names and "user_hash" in model.user_embedding.names
    assert "item_id" not in model.item_embedding.names and "item_hash" in model.item_embedding.names
    both = build("two_tower", data, "model.user_features=[user_id,user_hash]")
    assert both.user_embedding.names == ["user_id", "user_hash"]
    rows = model.user_embedding.embeddings[model.user_embedding.names.index("user_hash")]
    assert rows.weight.shape[0] == 31
    index = torch.tensor([[3, 7]])
    assert torch.allclose(rows(index)[0], rows.weight[[3, 7]].mean(0))


def test_id_dropout_hides_the_hash_as_well():
    torch.manual_seed(0)
    ids = {"user_id": torch.arange(1, 1001), "user_hash": torch.ones(1000, 2, dtype=torch.int)}
    found = hide_ids(ids, "user_id", 0.5)
    hidden = found["user_id"] == 0
    assert 400 < hidden.sum() < 600
    assert torch.equal(found["user_hash"], (~hidden).int()[:, None].expand(-1, 2))


def test_context_of_the_request(data):
    position = data.tables["position/test"][:5].long()
    user = data.tables["interactions/user"][position].long()
    found = data.user_features(position, user)["weekday"]
    assert found.shape == (5, 2) and torch.equal(found, data.tables["context/weekday"][position])
    assert (found > 0).all()
    end = data.tables["offset"][user + 1]
    assert data.user_features(end, user)["weekday"].tolist() == [[0, 0]] * 5
    model = make_retriever(data)
    days = [model.user_vector(model.users.raw[0], context={"weekday": day}) for day in (1, 2)]
    assert not torch.equal(*days)


def test_unknown_ids_have_vectors_of_their_own(data):
    model = make_retriever(data)
    assert model.hashes_users and not make_retriever(data, "mf").hashes_users
    known = model.users.raw[0]
    first, second, same = (
        model.user_vector(history=[], features={"user_hash": one})
        for one in ("new", "other", "new")
    )
    assert torch.equal(first, same) and not torch.equal(first, second)
    numbers = data.tables["user/user_hash"][model.users.row(known)]
    new = model.newcomer([], {"user_hash": known}).features["user_hash"]
    assert new[0].tolist() == numbers.tolist()
    item = model.item_vector(features={"item_hash": "new"})
    assert not torch.equal(item, model.item_vector(features={}))


def test_the_card_counts_buckets(data):
    prepared = data.preparation.load()
    card = measure(prepared, data.options)
    found = {row["name"]: row for row in card.figures["features"]["user"]}
    assert found["user_hash"]["values"] == 30 and found["user_hash"]["missing"] == 0


def shop(folder, num_users=400, num_items=120, num_queries=240):
    """People search, and click one of the ten items that fit the query."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        for time in range(16):
            query = int(rng.integers(num_queries))
            item = (query % 12) * 10 + int(rng.integers(10))
            rows.append((f"u{user}", item, time, f"query {query}"))
    clicks = pl.DataFrame(rows, schema=["user", "item", "step", "query"], orient="row")
    clicks.write_csv(folder / "clicks.csv")


@pytest.mark.slow
def test_hashed_queries_find_what_is_wanted(script):
    shop(script.folder)
    settings = (
        "data.reader.context={query: categorical}", "model=two_tower", "data.history_length=0",
        "data.duplicates=all", "data.mask_seen=false", "data.hashed={query: 100, user_id: 50}",
    )  # fmt: skip
    used = {"with": "user_hash,query", "without": "user_hash"}
    variants = {name: f"model.user_features=[{names}]" for name, names in used.items()}
    found = trained_hit_rates(script, settings, variants)
    assert found["with"] > found["without"] * 3, found
    ask = ("ckpt_path=with", "user_id=nobody", "k=5", "format=json")
    answer = script("recommend", *ask, "context={query: query 5}")
    assert answer.returncode == 0, answer.stderr
    items = [row["item"] for row in json.loads(answer.stdout)["found"]]
    assert sum(item // 10 == 5 for item in items) >= 4, items
    answer = script("recommend", "ckpt_path=with", "user_id=nobody")
    assert "that of its hash, whose rows other ids share" in answer.stdout
    lists = script("recommend", ask[0], "output=all.parquet", "context={query: query 5}", "k=5")
    assert lists.returncode == 0, lists.stderr
    assert (pl.read_parquet(script.folder / "all.parquet")["item"] // 10 == 5).mean() > 0.7
    exported = script("export", "ckpt_path=with", "output=exported")
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((script.folder / "exported" / "manifest.json").read_text())
    inputs = {entry["name"]: entry["shape"] for entry in manifest["schema"]["user_tower"]["inputs"]}
    assert inputs["user_hash"][1:] == [2] and inputs["query"][1:] == [2]
    assert manifest["parity"]["user_tower"] < 1e-5
    assert manifest["numeric"]["user.query"] == {"buckets": 100, "hashes": 2}
    readme = (script.folder / "exported" / "README.md").read_text()
    assert "first 2 groups of eight hexadecimal digits of the MD5 of its text) modulo 100" in readme
