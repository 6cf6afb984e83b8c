"""LightGCN's split files, hand-made."""

from pathlib import Path

import pytest

from tests.conftest import make_data
from twotower.data.readers.lightgcn import LightGCN
from twotower.data.splits import Given
from twotower.errors import UserError

TRAIN = "0 3 1 2\n1 1 3 \n2 2 4\n"
TEST = "0 4\n1 \n2 4 3 1\n"  # user 1 has no test items; item 4 of user 2 is in training too


def make_files(folder: Path, train: str = TRAIN, test: str = TEST) -> Path:
    top = folder / "lightgcn" / "toy"
    top.mkdir(parents=True)
    (top / "train.txt").write_text(train)
    (top / "test.txt").write_text(test)
    return folder


def reader():
    return LightGCN("toy_lightgcn", "toy", "http://127.0.0.1:9")


def test_by_hand(tmp_path):
    frames = reader().read(make_files(tmp_path))
    rows = frames.interactions.select("user", "item", "part", "time").rows()
    assert rows == [
        *[
            (0, 3, 0, 0),
            (0, 1, 0, 1),
            (0, 2, 0, 2),
            (1, 1, 0, 0),
            (1, 3, 0, 1),
            (2, 2, 0, 0),
            (2, 4, 0, 1),
        ],
        *[(0, 4, 2, 3), (2, 3, 2, 2), (2, 1, 2, 3)],
    ]
    assert frames.dropped == {"test rows that are in training too": 1}
    assert frames.time_unit == "order" and frames.items["category"].null_count() == 4
    assert reader().read(make_files(tmp_path / "clean", test="0 4\n")).dropped is None


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("0 1 2\n1 a\n", TEST, "train.txt line 2: 'a' is not a whole number"),
        (TRAIN, "0 1\n0 2\n", "test.txt line 2: user 0 has two lines"),
        (TRAIN, "\n", "test.txt is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path, train, test, message):
    with pytest.raises(UserError, match=message):
        reader().read(make_files(tmp_path, train, test))


def test_a_missing_file_is_one_line(tmp_path):
    folder = make_files(tmp_path)
    (folder / "lightgcn" / "toy" / "test.txt").unlink()
    with pytest.raises(UserError, match="test.txt is missing"):
        reader().read(folder)
    with pytest.raises(UserError, match=r"cannot download http://127.0.0.1:9/test.txt"):
        reader().fetch(folder)


def test_prepared(tmp_path):
    make_files(tmp_path / "raw", train="0 3 1 2 1\n1 1 3\n2 2 4\n")  # user 0 repeats item 1
    data = make_data(tmp_path, reader(), split=Given(0.4, 0), history_length=0)
    data.setup()
    assert data.meta["dropped"] == {
        "test rows that are in training too": 1,
        "repeated pairs (the first is kept)": 1,
    }
    assert data.meta["raw"]["interactions"] == 8 + 4
    # 40 % of 3, 2 and 2 rows, rounded half up: one each for validation;
    # user 0 is tested on item 4, user 2 on 3 and 1
    assert data.tables["targets/val"].tolist() == [1, 1, 1]
    assert data.tables["targets/test"].tolist() == [1, 2]
    assert data.schema.num_categories == 0
