"""MovieLens on hand-made files in the official formats, and on the real ones where they are at hand."""

import os
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import make_data
from twotower.data.movielens import MovieLens
from twotower.types import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))


def make_1m(folder: Path) -> Path:
    top = folder / "ml-1m"
    top.mkdir(parents=True)
    rows = [f"{user}::{item}::{1 + item % 5}::{978300000 + item}" for user in (1, 2) for item in (1, 2, 3, 4)]
    (top / "ratings.dat").write_text("\n".join(rows) + "\n")
    (top / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::7007X\n")
    movies = ["1::Été (1995)::Comedy|Drama", "2::Two: the 2nd (2001)::Drama", "3::Three::Western|Drama", "4::Four (1980)::Comedy"]
    (top / "movies.dat").write_bytes("\n".join(movies).encode("latin-1"))
    return top


def make_100k(folder: Path) -> Path:
    top = folder / "ml-100k"
    top.mkdir(parents=True)
    rows = [f"{user}\t{item}\t3\t{978300000 + item}" for user in (1, 2) for item in (1, 2, 3)]
    (top / "u.data").write_text("\n".join(rows) + "\n")
    (top / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|V3N4P\n")
    (top / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    items = ["1|Été (1995)|01-Jan-1995||http://x|0|1|1", "2|unknown||||1|0|0", "3|Three (1990)|01-Jan-1990||http://y|0|0|1"]
    (top / "u.item").write_bytes("\n".join(items).encode("latin-1"))
    return top


def reader(variant="1m", **changes):
    settings = {"url": "http://127.0.0.1:9/none.zip", "sha256": "0", "num_ratings": None, "primary_category": "most_frequent"}
    return MovieLens(variant, **{**settings, "zip_digits": 2, **changes})


def test_1m_by_hand(tmp_path):
    make_1m(tmp_path)
    frames = reader().read(tmp_path)
    assert frames.interactions.row(5, named=True) == {"user": 2, "item": 2, "value": 3.0, "time": 978300002}
    assert frames.users["zip"].to_list() == ["48", "70"]
    assert frames.items["title"].to_list()[:2] == ["Été (1995)", "Two: the 2nd (2001)"]
    assert frames.items["year"].to_list() == [1995, 2001, None, 1980]
    assert frames.items["genres"].to_list()[2] == ["Western", "Drama"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("most_frequent", ["Drama", "Drama", "Drama", "Comedy"]),  # Drama 3, Comedy 2, Western 1
        ("rarest", ["Comedy", "Drama", "Western", "Comedy"]),
        ("first", ["Comedy", "Drama", "Western", "Comedy"]),
    ],
)
def test_primary_category_rules(tmp_path, rule, expected):
    make_1m(tmp_path)
    assert reader(primary_category=rule).read(tmp_path).items["category"].to_list() == expected


def test_100k_by_hand(tmp_path):
    make_100k(tmp_path)
    frames = reader("100k").read(tmp_path)
    assert frames.items["genres"].to_list() == [["Action", "Drama"], ["unknown"], ["Drama"]]
    assert frames.items["year"].to_list() == [1995, None, 1990]
    assert frames.users["age"].to_list() == ["[18, 25)", "[50, 56)"]
    assert len(frames.interactions) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::2::3::4::5", "line 9 has 5 fields, expected 4"),
        ("1::2::3", "line 9 has 3 fields, expected 4"),
        ("1::2::good::4", "line 9: value is no number"),
        ("1::::3::4", "line 9: item is no number"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    with (make_1m(tmp_path) / "ratings.dat").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=rf"ratings.dat {message}"):
        reader().read(tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    make_1m(tmp_path)
    with pytest.raises(UserError, match=r"ratings.dat has 8 rows, 1,000,209 expected.*truncated"):
        reader(num_ratings=1_000_209).read(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (make_1m(tmp_path) / "users.dat").write_text("\n")
    with pytest.raises(UserError, match="users.dat is empty"):
        reader().read(tmp_path)


def test_offline_names_the_file_to_fetch(tmp_path):
    with pytest.raises(UserError, match=r"cannot download .*none.zip.*by hand.*ml-1m/ratings.dat exists, or set paths.data_dir"):
        reader().fetch(tmp_path)


def test_a_read_only_folder_with_the_files_is_enough(tmp_path):
    top = make_1m(tmp_path / "raw")
    before = sorted(path.name for path in (tmp_path / "raw").rglob("*"))
    data = make_data(tmp_path, reader())
    data.setup()
    assert sorted(path.name for path in top.parent.rglob("*")) == before  # no lock, no temporary file
    assert data.schema.num_items == 4


def test_changed_raw_files_are_prepared_anew(tmp_path):
    top = make_1m(tmp_path / "raw")
    make_data(tmp_path, reader()).setup()
    with (top / "ratings.dat").open("a") as file:
        file.write("1::2::3::4::5\n")
    with pytest.raises(UserError, match="5 fields"):
        make_data(tmp_path, reader()).setup()


@pytest.mark.data
@pytest.mark.parametrize(
    ("variant", "num_ratings", "top", "users", "items"),
    [("100k", 100_000, "ml-100k", 943, 1682), ("1m", 1_000_209, "ml-1m", 6040, 3706)],
)
def test_official_counts(variant, num_ratings, top, users, items):
    if not (REAL / top).exists():
        pytest.skip(f"no {top} in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader(variant, num_ratings=num_ratings).read(REAL)
    assert frames.interactions["user"].n_unique() == users
    assert frames.interactions["item"].n_unique() == items
    assert frames.interactions.null_count().sum_horizontal().item() == 0
    # every rated film has a row; at least one in a thousand has no year in its title
    rated = frames.items.filter(pl.col("item").is_in(frames.interactions["item"].unique().implode()))
    assert len(rated) == items and rated["category"].null_count() == 0
