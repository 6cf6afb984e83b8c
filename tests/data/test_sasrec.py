"""SASRec's MovieLens-1M: hand-made files, and the real ones where they are at hand."""

import os
from pathlib import Path

import pytest

from tests.conftest import make_data
from tests.helpers.movielens import make_1m
from twotower.data.readers.sasrec import SASRec
from twotower.errors import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))


def make_files(
    folder: Path, rows: str = "1 3\n1 1\n1 2\n2 2\n2 3\n2 1\n", items: str = "0 0\n1 4\n2 1\n3 2\n"
) -> Path:
    """SASRec's users 1 and 2 are 2 and 1 of the original, its items 1, 2, 3 are 4, 1, 2."""
    make_1m(folder)
    (folder / "sasrec").mkdir()
    (folder / "sasrec" / "ml-1m.txt").write_text(rows)
    (folder / "sasrec" / "sas_to_original_users.txt").write_text("1 2\n2 1\n")
    (folder / "sasrec" / "sas_to_original_items.txt").write_text(items)
    return folder


def reader():
    return SASRec("http://127.0.0.1:9/ml-1m.txt", None, "most_frequent", 2)


def test_by_hand(tmp_path):
    frames = reader().read(make_files(tmp_path))
    rows = frames.interactions.select("user", "item", "time").rows()
    assert rows == [(1, 3, 0), (1, 1, 1), (1, 2, 2), (2, 2, 0), (2, 3, 1), (2, 1, 2)]
    assert frames.time_unit == "order" and not frames.remarks
    assert frames.users.select("user", "gender", "zip").sort("user").rows() == [
        (1, "M", "70"),
        (2, "F", "48"),
    ]
    assert frames.items.select("item", "title", "category").sort("item").rows() == [
        (1, "Four (1980)", "Comedy"),
        (2, "Été (1995)", "Drama"),
        (3, "Two: the 2nd (2001)", "Drama"),
    ]


@pytest.mark.parametrize(
    "missing",
    ["sasrec/sas_to_original_users.txt", "sasrec/sas_to_original_items.txt", "ml-1m/movies.dat"],
)
def test_without_what_describes_them_the_rows_are_usable(tmp_path, missing):
    (make_files(tmp_path / "raw") / missing).unlink()
    frames = reader().read(tmp_path / "raw")
    assert frames.items["category"].null_count() == len(frames.items) == 3
    assert (
        len(frames.remarks) == 1 and missing in frames.remarks[0] and frames.note == "no features"
    )
    data = make_data(tmp_path, reader())
    data.setup()
    assert data.schema.num_categories == 0


@pytest.mark.parametrize(
    ("rows", "items", "message"),
    [
        ("1 3\n1 3 4\n", "1 1\n", "ml-1m.txt line 2 has 3 fields, expected 2"),
        ("1 3\nx 3\n", "1 1\n", "ml-1m.txt line 2: user is not a number"),
        ("", "1 1\n", "ml-1m.txt is empty"),
        ("1 3\n", "1 1\n2 1\n", "sas_to_original_items.txt maps 1 twice"),
        ("1 3\n", "1 1\n1 2\n", "sas_to_original_items.txt maps 1 twice"),
        ("1 3\n", "1\n", "sas_to_original_items.txt line 1 has 1 fields"),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, items, message):
    with pytest.raises(UserError, match=message):
        reader().read(make_files(tmp_path, rows, items))


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"sasrec/ml-1m.txt is missing"):
        reader().read(tmp_path)


@pytest.mark.data
def test_official_counts():
    if not (REAL / "sasrec" / "ml-1m.txt").exists():
        pytest.skip(f"no sasrec/ml-1m.txt in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader().read(REAL)
    rows = frames.interactions
    assert (len(rows), rows["user"].n_unique(), rows["item"].n_unique()) == (999_611, 6_040, 3_416)
    if not frames.remarks:  # the maps and ml-1m are there: everything that is rated is described
        assert rows.join(frames.items.drop_nulls("category"), on="item", how="anti").is_empty()
        assert rows.join(frames.users, on="user", how="anti").is_empty()
