"""Conditions on items, and the file with the lists of all users."""

import polars as pl
import pytest
import torch

from tests.helpers.retriever import make_retriever
from twotower import locks
from twotower.errors import UserError
from twotower.serve import everyone
from twotower.serve.filters import matching_items

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def model(data):
    return make_retriever(data)


def raw_items(model):
    """Raw features in the order of the corpus."""
    items = model.data.reader.read(model.data.preparation.data_dir).items
    return pl.DataFrame({"item": model.items.raw}).join(items, on="item", maintain_order="left")


def test_conditions_choose_what_the_raw_data_say(model):
    raw = raw_items(model)
    name, other = raw["category"].unique().sort()[:2]
    tag, brand = raw["tags"].explode().drop_nulls()[0], raw["brand"].drop_nulls()[3]
    price = raw["price"].sort()[17]
    for where, expected in {
        f"category={name}": pl.col("category") == name,
        f" category = {name} | {other} ": pl.col("category").is_in([name, other]),
        f"category!={name}": pl.col("category").ne_missing(name),
        f"tags={tag}": pl.col("tags").list.contains(tag),
        f"brand={brand}": pl.col("brand").cast(pl.String) == str(brand),
        f"price>={price}": pl.col("price") >= price,
        f"price>{price}": pl.col("price") > price,
        f"price<={price}": pl.col("price") <= price,
        f"price={price}": pl.col("price") == price,
    }.items():
        rows = matching_items(model.data, where).tolist()
        assert rows == raw.with_row_index().filter(expected)["index"].to_list(), where
        assert 0 < len(rows) < len(raw)
    both = matching_items(model.data, [f"category={name}", f"price<{price}"]).tolist()
    found = raw.with_row_index().filter(category=name).filter(pl.col("price") < price)
    assert both == found["index"].to_list()
    assert len(matching_items(model.data, None)) == len(raw)


def test_numbers_among_values_are_compared(model):
    model.data.encodings = {**model.data.encodings, "item/brand": pl.DataFrame({"value": [5, 10]})}
    model.data.tables["item/brand"] = torch.tensor([0, 1, 2] + [0] * 37)
    assert matching_items(model.data, "brand>=10").tolist() == [2]
    assert matching_items(model.data, "brand<10").tolist() == [1]


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("colour=red", "where=colour=red: items have no colour; there are category, brand, "),
        ("category=nope", "where=category=nope: no item has nope; of 3 values the nearest are"),
        ("category=category 0|", "no item has an empty value"),
        ("category>3", "where=category>3: category has no numbers: use = or !="),
        ("price=cheap", "where=price=cheap: cheap is not a number"),
        ("category", "where=category: write feature=value"),
        (["price>1", "price<1"], "where=price>1 and price<1: no item is like this"),
    ],
)
def test_a_wrong_condition_is_one_line(model, where, line):
    with pytest.raises(UserError) as caught:
        matching_items(model.data, where)
    assert line in str(caught.value)


@pytest.mark.parametrize("name", ["two_tower", "mind", "popularity"])
@pytest.mark.parametrize(
    ("seen", "where"), [(None, None), (True, "price>1"), (None, ["category!=category 0"])]
)
def test_the_lists_of_all_are_those_of_each(data, tmp_path, monkeypatch, name, seen, where):
    model = make_retriever(data, name)
    monkeypatch.setattr(everyone, "MAX_USERS", 7)  # several chunks, the last one shorter
    target = tmp_path / "lists.parquet"
    num_rows = everyone.write_lists(model, target, 40, seen, where)
    table = pl.read_parquet(target)
    assert table.columns == ["user", "rank", "item", "score"] and len(table) == num_rows
    assert pq.ParquetFile(target).num_row_groups == 9  # 60 users
    assert table["user"].unique(maintain_order=True).to_list() == model.users.raw.to_list()
    for (user,), own in table.group_by("user", maintain_order=True):
        wanted = model.recommend(user, 40, seen, where=where)
        assert own["rank"].to_list() == wanted["rank"].to_list()
        assert own["score"].to_list() == pytest.approx(wanted["score"].to_list(), abs=1e-5)
        assert sorted(own["item"]) == sorted(wanted["item"])
        clear = wanted["score"].diff().abs().fill_null(1) > 1e-4
        clear &= clear.shift(-1, fill_value=True)
        assert own["item"].filter(clear).to_list() == wanted["item"].filter(clear).to_list()


def test_a_condition_applies_to_every_kind_of_list(model):
    allowed = set(model.items.raw[matching_items(model.data, "price>2").numpy()])
    user, item = model.users.raw[3], model.items.raw[3]
    for found in (
        model.recommend(user, 40, seen=True, where="price>2"),
        model.recommend_history([item], 40, seen=True, where="price>2"),
    ):
        assert set(found["item"]) == allowed
    assert set(model.similar(item, 39, "price>2")["item"]) == allowed - {item}


def test_an_unfinished_file_never_has_its_name(model, tmp_path, monkeypatch):
    target = tmp_path / "lists.parquet"
    target.write_text("old")
    monkeypatch.setattr(everyone, "MAX_USERS", 7)
    written = []

    def fail(writer, table):
        written.append(table)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", fail)
        with pytest.raises(KeyboardInterrupt):
            everyone.write_lists(model, target, 5)
    assert written and target.read_text() == "old"
    lock = locks.if_free(tmp_path / ".locks" / "lists.parquet")
    with lock, pytest.raises(UserError, match="is being written; process"):
        everyone.write_lists(model, target, 5)
    assert target.read_text() == "old"
    everyone.write_lists(model, target, 5)
    assert len(pl.read_parquet(target)) == 300
    assert [path.name for path in tmp_path.glob("*lists*")] == ["lists.parquet"]


def test_what_must_not_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "there.parquet").touch()
    (tmp_path / "folder.parquet").mkdir()
    for name in ("lists.csv", "folder.parquet"):
        with pytest.raises(UserError, match=r"ends in \.parquet"):
            everyone.check_target(tmp_path / name, force=False)
    with pytest.raises(UserError, match="force=true"):
        everyone.check_target(tmp_path / "there.parquet", force=False)
    everyone.check_target(tmp_path / "there.parquet", force=True)
    everyone.check_target(tmp_path / "new.parquet", force=False)
