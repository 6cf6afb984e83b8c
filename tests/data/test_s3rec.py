"""S3-Rec's files: hand-made ones, and the real ones where they are at hand."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import make_data
from twotower.data.readers.s3rec import S3Rec
from twotower.errors import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))
SEQUENCES = "1 10 20 30\n2 20 10 40 30 \n3\t40 20 10\r\n"
ATTRIBUTES = {
    "10": [7, 5, 5],
    "20": [5, 7, 9],
    "30": [5, 9],
    "50": [3, 5],
}  # 5: 4 items, 7: 2, 9: 2, 3: 1


def make_files(folder: Path, sequences: str = SEQUENCES, attributes: object = ATTRIBUTES) -> Path:
    (folder / "s3rec").mkdir(parents=True)
    (folder / "s3rec" / "Toy.txt").write_text(sequences)
    text = attributes if isinstance(attributes, str) else json.dumps(attributes)
    (folder / "s3rec" / "Toy_item2attributes.json").write_text(text)
    return folder


def reader(dataset="Toy", **changes):
    settings = {"url": "http://127.0.0.1:9", "sha256": None, "attributes_sha256": None}
    return S3Rec(
        "s3rec_toy",
        dataset,
        **{**settings, "max_attributes": 16, "max_category_share": 0.5, **changes},
    )


def described(frames):
    return {
        row["item"]: (row["attributes"], row["category"])
        for row in frames.items.iter_rows(named=True)
    }


def test_by_hand(tmp_path):
    frames = reader().read(make_files(tmp_path))
    rows = frames.interactions.select("user", "item", "time").rows()
    assert rows == [
        *[(1, 10, 0), (1, 20, 1), (1, 30, 2)],
        *[(2, 20, 0), (2, 10, 1), (2, 40, 2), (2, 30, 3)],
        *[(3, 40, 0), (3, 20, 1), (3, 10, 2)],
    ]
    assert frames.time_unit == "order" and not frames.remarks
    # all 4 items of the file have 5, more than half of them, so it is not used as a category;
    # 7 and 9 are equally frequent: 7 is smaller
    assert described(frames) == {
        10: ([5, 7], "7"),
        20: ([5, 7, 9], "7"),
        30: ([5, 9], "9"),
        40: (None, None),
    }


def test_every_attribute_may_be_a_category(tmp_path):
    frames = reader(max_category_share=1.0).read(make_files(tmp_path))
    assert [category for _, category in described(frames).values() if category] == ["5", "5", "5"]


def test_the_most_frequent_attributes_are_kept(tmp_path):
    frames = reader(max_attributes=1).read(make_files(tmp_path))
    assert described(frames) == {10: ([5], "7"), 20: ([5], "7"), 30: ([5], "9"), 40: (None, None)}


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ("1 2 3\n\n2 x 3\n", r"Toy.txt line 3: 'x' is not a whole number"),
        ("1 2 3\n2.5 3\n", r"Toy.txt line 2: '2.5' is not a whole number"),
        ("1 2 3\n2\n", r"Toy.txt line 2 names a user and no item"),
        ("1 2 3\n2 4\n1 5\n", r"Toy.txt line 3: user 1 has two lines"),
        (" \n", r"Toy.txt is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path, sequences, message):
    with pytest.raises(UserError, match=message):
        reader().read(make_files(tmp_path, sequences))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('{"1": [2],\n"2": [3,]}', r"attributes.json line 2 is not valid JSON"),
        ({"1": [2], "2": "Shoes"}, r"item '2' must be a number with a list of numbers, got Shoes"),
        ({"one": [2]}, r"item 'one' must be a number"),
        ({"1": [2, None]}, r"item '1' must be"),
        ([1, 2], r"must hold .* got a list"),
        ("", r"attributes.json line 1 is not valid JSON"),
    ],
)
def test_bad_attributes_are_named(tmp_path, attributes, message):
    with pytest.raises(UserError, match=message):
        reader().read(make_files(tmp_path, attributes=attributes))


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"Toy.txt is missing"):
        reader().read(tmp_path)


def test_without_attributes_the_data_are_usable_and_say_so(tmp_path):
    folder = make_files(tmp_path / "raw")
    path = folder / "s3rec" / "Toy_item2attributes.json"
    path.unlink()
    reader().fetch(folder)  # nothing listens there, and that is no reason to stop
    frames = reader().read(folder)
    assert frames.items["category"].null_count() == len(frames.items) == 4
    assert frames.note == "without item attributes"
    assert len(frames.remarks) == 1 and f"{path} is missing" in frames.remarks[0]
    data = make_data(tmp_path, reader())
    data.setup()
    assert data.schema.num_categories == 0 and [feature.name for feature in data.schema.item] == [
        "item_id"
    ]


def test_prepared(tmp_path):
    make_files(tmp_path / "raw")
    data = make_data(tmp_path, reader())
    data.setup()
    # trained on 1: 10; 2: 20 10; 3: 40. Item 30 is only held out, so it comes last and has
    # no row of its own
    assert data.schema.num_items == 4 and data.schema.num_train_items == 3
    assert (
        data.schema.num_categories == 2 and data.schema.num_values("attributes") == 4
    )  # 5, 7, 9 and unknown


def test_thinned_users_are_tested_on_the_same_items(tmp_path):
    make_files(tmp_path / "raw", "1 10 20 30 10 40 50 60\n2 60 50 40 30 20 10\n")
    targets = []
    for most in (None, 5, 3):
        data = make_data(tmp_path, reader(), max_per_user=most)
        data.setup()
        ids, item = data.ids["item"]["item"], data.tables["interactions/item"]
        tested = [data.tables[f"position/{part}"] for part in ("val", "test")]
        targets.append([[ids[int(row)] for row in item[own.long()]] for own in tested])
        if most is not None:
            assert len(data.tables["position/train"]) == 2 * (most - 2)
    assert targets == [[[50, 20], [60, 10]]] * 3


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "users", "items", "rows", "categories", "widest"),
    [
        ("Beauty", 22_363, 12_101, 198_502, 7, 6),
        ("Sports_and_Outdoors", 35_598, 18_357, 296_337, 103, 16),
    ],
)
def test_official_counts(dataset, users, items, rows, categories, widest):
    if not (REAL / "s3rec" / f"{dataset}.txt").exists():
        pytest.skip(f"no s3rec/{dataset}.txt in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader(dataset).read(REAL)
    assert (len(frames.users), len(frames.items), len(frames.interactions)) == (users, items, rows)
    assert frames.interactions.select("user", "item").is_unique().all()
    for side in ("user", "item"):  # 5-core as it comes
        assert frames.interactions[side].value_counts()["count"].min() == 5
    assert (
        frames.items["category"].n_unique() == categories
        and frames.items["category"].null_count() == 0
    )
    assert frames.items["attributes"].list.len().max() == widest
