"""Globo on hand-made files in the official format, and on the real ones where they are at hand."""

import gzip
import lzma
import os
from pathlib import Path

import pytest

from tests.conftest import make_data
from twotower.data.readers.globo import Globo
from twotower.errors import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))
HEADER = (
    "user_id,click_article_id,click_timestamp,click_environment,click_deviceGroup,click_os,click_country,click_region,"
    "click_referrer_type"
)
CLICKS = [
    "7,30,1506826900000,4,3,20,1,20,2",
    "7,10,1506826800000,4,1,17,1,21,1",  # user 7's first click, though not the first in the file
    "9,10,1506826800000,2,1,2,10,28,5",
    "9,40,1506826801000,4,1,2,10,28,5",
]
ARTICLES = (
    "article_id,category_id,created_at_ts,words_count,quality\n"
    "10,0,86400000,250,0\n30,281,,,1\n20,5,172800000,90,0\n"
)


def make(folder: Path, clicks=CLICKS, articles: str | None = ARTICLES, header=HEADER) -> Path:
    top = folder / "globo"
    top.mkdir(parents=True, exist_ok=True)
    (top / "clicks.csv").write_text("\n".join([header, *clicks]) + "\n")
    if articles is not None:
        (top / "articles_metadata.csv").write_text(articles)
    return top


def reader() -> Globo:
    return Globo(["clicks.csv*", "clicks_[0-9]*.csv*", "clicks/*.csv*"])


def test_by_hand(tmp_path):
    make(tmp_path)
    frames = reader().read(tmp_path)
    assert frames.time_unit == "ms"
    assert frames.interactions.rows()[:2] == [(7, 30, 1506826900000), (7, 10, 1506826800000)]
    assert frames.users.rows() == [
        (7, 4, 1, 17, 1, 21, 1),
        (9, 2, 1, 2, 10, 28, 5),
    ]  # what was known at the first click
    assert frames.items.rows(named=True)[:2] == [
        {"item": 10, "category": 0, "words": 250, "created": 1.0},
        {"item": 30, "category": 281, "words": None, "created": None},
    ]
    assert frames.remarks == (
        "globo: 1 articles have a recovered category (quality > 0): 25.00% of the clicks",
        "globo: 1 clicked articles are not in articles_metadata.csv: "
        "they have neither category nor features",
    )


def test_a_publisher_is_a_feature_and_other_columns_are_not(tmp_path):
    make(
        tmp_path,
        articles="article_id,category_id,created_at_ts,publisher_id,words_count,embedding\n10,0,1,4,2,x\n",
    )
    frames = reader().read(tmp_path)
    assert frames.items.columns == ["item", "category", "publisher", "words", "created"]
    assert frames.item_features["publisher"] == "categorical"


def test_without_metadata_every_category_is_missing(tmp_path):
    make(
        tmp_path, clicks=[*CLICKS, "7,20,1506826900001,4,1,17,1,21,1"], articles=None
    )  # three clicks: one for each part
    frames = reader().read(tmp_path)
    assert frames.items.is_empty() and frames.item_features == {}
    assert "articles_metadata.csv is missing" in frames.remarks[0] and len(frames.remarks) == 1
    data = make_data(tmp_path, reader(), data_dir=str(tmp_path))
    data.setup()
    assert data.schema.num_categories == 0 and (data.tables["category"] == -1).all()


def test_compressed_shards_read_like_one_file(tmp_path):
    expected = reader().read(make(tmp_path / "one").parent)
    top = make(tmp_path / "many")
    (top / "clicks.csv").unlink()
    for number, (compress, rows) in enumerate(
        [(gzip.compress, CLICKS[:2]), (lzma.compress, CLICKS[2:])]
    ):
        suffix = "gz" if number == 0 else "xz"
        (top / f"clicks_{number}.csv.{suffix}").write_bytes(
            compress("\n".join([HEADER, *rows]).encode())
        )
    (top / "clicks_sample.csv").write_text("not\nread\n")
    frames = reader().read(tmp_path / "many")
    assert frames.interactions.equals(expected.interactions) and frames.users.equals(expected.users)


def test_the_same_file_twice_is_refused(tmp_path):
    top = make(tmp_path)
    (top / "clicks.csv.gz").write_bytes(gzip.compress((top / "clicks.csv").read_bytes()))
    with pytest.raises(
        UserError, match=r"clicks.csv.gz is there twice, as clicks.csv too: remove one"
    ):
        reader().read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9,10,x,4,1,2,10,28,5", "line 4 has 'x' for click_timestamp, expected Int64"),
        (
            "9,4000000000,1,4,1,2,10,28,5",
            "line 4 has '4000000000' for click_article_id, expected Int32",
        ),
        ("9,,1506826800000,4,1,2,10,28,5", "line 4 has '' for click_article_id"),
        ("9,10,1506826800000,4", "line 4 has 4 fields, expected 9"),
        ("9,10", "line 4 has 2 fields, expected 9"),
        ("9,10,1506826800000,4,1,2,10,28,5,6", "line 4 has 10 fields, expected 9"),
        ("9,10,1506826800000,4,1,many,10,28,5", "line 4 has 'many' for click_os"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    make(tmp_path, [*CLICKS[:2], line, *CLICKS[3:]])
    with pytest.raises(UserError, match=rf"clicks.csv {message}"):
        reader().read(tmp_path)


def test_blank_lines_and_windows_line_ends_are_harmless(tmp_path):
    expected = reader().read(make(tmp_path / "plain").parent)
    top = make(tmp_path / "windows")
    (top / "clicks.csv").write_bytes("\r\n".join([HEADER, *CLICKS, "", ""]).encode())
    assert reader().read(tmp_path / "windows").interactions.equals(expected.interactions)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(
        UserError,
        match=r"globo holds no clicks.csv\* .*need a login.*kaggle.*or set paths.data_dir",
    ):
        reader().fetch(tmp_path)
    make(tmp_path, header=HEADER.replace("click_article_id", "article"))
    with pytest.raises(
        UserError,
        match=r"clicks.csv has no column click_article_id; its columns are user_id, article,",
    ):
        reader().read(tmp_path)
    make(tmp_path, clicks=[])
    with pytest.raises(UserError, match=r"clicks.csv holds no rows"):
        reader().read(tmp_path)
    make(tmp_path, articles=ARTICLES + "10,1,1,1,0\n")
    with pytest.raises(UserError, match=r"articles_metadata.csv has the article 10 twice"):
        reader().read(tmp_path)


@pytest.mark.data
@pytest.mark.slow
def test_official_counts():
    if not (REAL / "globo").exists():
        pytest.skip(f"no globo in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader().read(REAL)
    assert len(frames.interactions) == 2_988_181
    assert frames.interactions["user"].n_unique() == len(frames.users) == 322_897
    assert frames.interactions["item"].n_unique() == 46_033
    assert frames.items["category"].n_unique() == 297
    assert frames.items.null_count().row(0, named=True)["words"] == 10_836  # the recovered ones
