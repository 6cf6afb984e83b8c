"""Vectors as features: from the user's files to what a tower reads."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.frames import KEEP_ALL, make_frames
from tests.helpers.table import read, reader, trained_hit_rates
from twotower.data.prepare.newcomers import from_values
from twotower.data.prepare.prepare import prepare
from twotower.errors import UserError
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.types import Feature

CLICKS = "user,item\n1,a\n1,b\n1,c\n2,b\n"
WIDTHS = pl.Array(pl.Float32, 3)


def items_of(folder, frame, **changes):
    """Frames of a table of items in Parquet."""
    frame.write_parquet(folder / "items.parquet")
    (folder / "clicks.csv").write_text(CLICKS)
    return reader(interactions="clicks.csv", items="items.parquet", **changes).read(folder)


@pytest.mark.parametrize(
    "dtype", [pl.List(pl.Float64), pl.Array(pl.Float32, 3), pl.List(pl.Float32)]
)
def test_lists_of_numbers_of_one_length_are_vectors(tmp_path, dtype):
    vectors = pl.Series("text", [[1.0, 0.5, -2.0], None, [0.0, 1.0, 3.0]], dtype)
    frames = items_of(tmp_path, pl.DataFrame({"item": ["a", "b", "c"], "text": vectors}))
    assert frames.item_features == {"text": "vector"} and frames.items["text"].dtype == WIDTHS
    assert frames.items["text"].to_list() == [[1.0, 0.5, -2.0], None, [0.0, 1.0, 3.0]]
    assert "vector of 3" in frames.remarks[0]


def test_lists_of_several_lengths_are_left_out(tmp_path):
    items = pl.DataFrame({"item": ["a", "b"], "prices": [[1.0, 2.5], [3.5]]})
    frames = items_of(tmp_path, items)
    assert frames.item_features == {} and "left out: vectors (list)" in frames.remarks[0]
    with pytest.raises(
        UserError, match="prices=vector: vectors need one width of 2 or more.* 1, 2"
    ):
        items_of(tmp_path, items, item_features={"prices": "vector"})


@pytest.mark.parametrize(
    ("first", "second"), [("[0.5, 2]", "[1, -3e1]"), ("0.5|2", "1|-30"), ("0.5 2", " 1  -30 ")]
)
def test_text_is_a_vector_where_it_is_declared(tmp_path, first, second):
    items = f'item,text\na,"{first}"\nb,\nc,"{second}"\n'
    frames = read(tmp_path, CLICKS, items, item_features={"text": "vector"})
    assert frames.items["text"].to_list() == [[0.5, 2.0], None, [1.0, -30.0]]


@pytest.mark.parametrize("text", ["[1, x]", "[1, inf]", "[1, nan]"])
def test_numbers_that_are_none_are_refused(tmp_path, text):
    items = f'item,text\na,"{text}"\nb,"[1, 2]"\n'
    with pytest.raises(UserError, match="item_features.text=vector: some numbers within"):
        read(tmp_path, CLICKS, items, item_features={"text": "vector"})


def test_vectors_from_a_file_beside_the_table(tmp_path):
    items = "item,price\nb,1.5\na,2.5\nz,3.5\n"
    array = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "text.npy", array)
    frames = read(tmp_path, CLICKS, items, item_vectors={"text": "text.npy"})
    assert dict(frames.items.select("item", "text").rows())["a"] == [2.0, 3.0]
    assert frames.item_features == {"price": "numeric", "text": "vector"}
    given = reader(interactions="clicks.csv", items="items.csv", item_vectors={"text": "text.npy"})
    assert tmp_path / "text.npy" in given.sources(tmp_path)
    # Parquet has the ids, in any order, and not for every item
    ids = pl.DataFrame({"sku": ["a", "q", "z"], "v": array.tolist()})
    ids.write_parquet(tmp_path / "text.parquet")
    frames = read(tmp_path, CLICKS, items, item_vectors={"text": "text.parquet"})
    known = dict(frames.items.select("item", "text").rows())
    assert known == {"b": None, "a": [0.0, 1.0], "z": [4.0, 5.0]}


def test_files_of_vectors_that_do_not_fit(tmp_path):
    items = "item,price\nb,1.5\na,2.5\n"
    (tmp_path / "items.csv").write_text(items)

    def refused(message, name="text.npy"):
        with pytest.raises(UserError, match=message):
            given = read(tmp_path, CLICKS, items, item_vectors={"text": name})
            given.fetch(tmp_path)

    refused("item_vectors.text=text.npy: there is no such file")
    np.save(tmp_path / "text.npy", np.zeros((3, 2)))
    refused("text.npy has 3 rows, its table has 2")
    np.save(tmp_path / "text.npy", np.zeros(2))
    refused(r"has the shape \(2,\)")
    np.save(tmp_path / "text.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    refused("text.npy cannot be read")  # it holds a pickle
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(tmp_path / "text.parquet")
    refused("must have one column of ids and one of vectors", "text.parquet")
    pl.DataFrame({"a": ["a", "a"], "v": [[1.0, 2.0], [1.0, 3.0]]}).write_parquet(
        tmp_path / "text.parquet"
    )
    refused("several vectors for one a", "text.parquet")
    with pytest.raises(UserError, match="item_vectors needs a table: set data.reader.items"):
        read(tmp_path, CLICKS, item_vectors={"text": "text.npy"})


def world():
    """Items 10 and 20 are in training, 30 and 40 are cold."""
    rows = [(1, 10, 1, 1.0), (1, 20, 2, 1.0), (1, 30, 3, 1.0), (1, 40, 4, 1.0)]
    rows += [(2, 10, 1, 1.0), (2, 20, 1, 1.0)]
    text = pl.Series([[1.0, 0.0], [3.0, 4.0], [2.0, 2.0], None], dtype=pl.Array(pl.Float32, 2))
    items = {"item": [10, 20, 30, 40], "category": [None] * 4, "text": text}
    frames = make_frames(rows, items={name: items[name] for name in ("item", "category")})
    return frames._replace(items=pl.DataFrame(items), item_features={"text": "vector"})


def test_prepared_vectors_by_hand():
    prepared = prepare(world(), KEEP_ALL)
    # training mean (2, 2); deviations -1, 1 and -2, 2: the mean square is (1 + 1 + 4 + 4) / 4
    std = 2.5**0.5
    expected = np.array([[-1, -2], [1, 2], [0, 0], [0, 0]]) / std
    found = prepared.arrays["item/text"]
    assert found.dtype == np.float32 and found == pytest.approx(expected)
    assert prepared.meta["schema"]["item"][1] == ["text", "vector", 2]
    features = (Feature("item_id", "categorical", 3), Feature("text", "vector", 2))
    new = from_values("item", features, {"text": [4.0, 2.0]}, prepared.encodings)
    torch.testing.assert_close(new["text"], torch.tensor([[2 / std, 0.0]]))
    assert from_values("item", features, {}, prepared.encodings)["text"].tolist() == [[0, 0]]
    for wrong in ([1.0], "text", [1.0, float("nan")], [[1.0], [2.0, 3.0]]):
        with pytest.raises(UserError, match="features.text must be 2 numbers"):
            from_values("item", features, {"text": wrong}, prepared.encodings)


def test_a_tower_projects_them():
    features = (Feature("item_id", "categorical", 5), Feature("text", "vector", 2))
    embedding = FeatureEmbedding(features, 3, None, "mean")
    linear = embedding.embeddings[1].linear
    given = {"item_id": torch.tensor([1, 2]), "text": torch.tensor([[1.0, 2.0], [0.0, 0.0]])}
    found = embedding(given)[:, 3:]
    expected = given["text"] @ linear.weight.T + linear.bias
    torch.testing.assert_close(found, expected)


def test_large_tables_may_stay_on_the_host(tmp_path):
    data = make_data(tmp_path)
    data.setup()
    data.tables["item/text"] = torch.rand(data.schema.num_items, 4)
    features = (*data.schema.item, Feature("text", "vector", 4))
    data.schema = data.schema._replace(item=features)
    item = torch.tensor([3, 1])
    assert torch.equal(data.item_features(item)["text"], data.tables["item/text"][item])


def shop(folder, num_users=300, num_tastes=5, width=8):
    """Clicks in order of time; the items of the last tenth are new, and only text tells of them."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(num_tastes, width))
    num_items = 40 * num_tastes
    taste = np.arange(num_items) % num_tastes
    vectors = directions[taste] + 0.3 * rng.normal(size=(num_items, width))
    born = np.concatenate([np.zeros(30 * num_tastes), np.full(10 * num_tastes, 0.9)])
    rows = []
    for moment in np.sort(rng.random(9000)):
        user = int(rng.integers(num_users))
        fits = taste == user % num_tastes
        weight = fits * (born <= moment) * np.where(born > 0, 5, 1)
        item = int(rng.choice(num_items, p=weight / weight.sum()))
        rows.append((user, item, int(1e6 * moment)))
    clicks = pl.DataFrame(rows, schema=["user", "item", "step"], orient="row")
    clicks.write_csv(folder / "clicks.csv")
    pl.DataFrame({"item": np.arange(num_items), "text": vectors}).write_parquet(
        folder / "items.parquet"
    )


@pytest.mark.slow
def test_new_items_are_found_by_their_text(script):
    shop(script.folder)
    settings = [
        *("data.reader.items=items.parquet", "data/split=temporal", "data.split.val_from=0.88"),
        *("data.split.test_from=0.94", "model=two_tower", "model.id_dropout=0.3"),
        "model.cold_ids=trained",
    ]
    used = {"text": "item_id,text", "id": "item_id"}
    variants = {name: f"model.item_features=[{names}]" for name, names in used.items()}
    found = trained_hit_rates(script, settings, variants, "cold/hit_rate@10")
    assert found["text"] > 0.3 and found["id"] < 0.15, found
    exported = script("export", "ckpt_path=text", "output=exported")
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((script.folder / "exported" / "manifest.json").read_text())
    inputs = {entry["name"]: entry for entry in manifest["schema"]["item_tower"]["inputs"]}
    assert inputs["text"]["shape"] == ["batch", 8] and inputs["text"]["dtype"] == "float32"
    assert manifest["parity"]["item_tower"] < 1e-5
    scale = pl.read_parquet(script.folder / "exported" / "vocabularies" / "item.text.parquet")
    assert scale.columns == ["mean", "std"] and len(scale) == 8
