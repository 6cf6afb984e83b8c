"""Taobao: hand-made files in the official format, and a slice of the real one if present."""

import os
from pathlib import Path

import pytest

from tests.conftest import make_data
from twotower.data.readers.taobao import Taobao
from twotower.errors import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))
START = 1511539200  # 2017-11-25 00:00 in China is 2017-11-24 16:00 UTC
END = 1512316800  # 2017-12-04 00:00 in China
ROWS = [
    f"1,10,7,pv,{START}",
    f"1,10,7,buy,{START + 5}",
    f"1,11,9,pv,{END - 1}",
    f"2,11,8,cart,{START + 1}",
    f"2,12,8,pv,{START - 1}",
    f"2,13,5,fav,{END}",
    f"3,10,6,pv,{START + 2}",
    "3,14,5,pv,-1",  # the official file has times before 1970
]


def make(folder: Path, rows=ROWS) -> Path:
    path = folder / "taobao" / "UserBehavior.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def reader(*behaviours, first_day="2017-11-25", last_day="2017-12-03"):
    return Taobao(list(behaviours) or ["pv"], first_day, last_day)


def test_one_behaviour_by_hand(tmp_path):
    make(tmp_path)
    frames = reader().read(tmp_path)
    assert frames.interactions.columns == ["user", "item", "time"]
    assert frames.interactions.rows() == [(1, 10, START), (1, 11, END - 1), (3, 10, START + 2)]
    assert frames.behaviours == ()
    assert frames.dropped == {
        "outside 2017-11-25 to 2017-12-03 in China": 3,
        "other behaviours than pv": 2,
    }


def test_several_behaviours_are_numbered_as_asked(tmp_path):
    make(tmp_path)
    frames = reader("buy", "pv").read(tmp_path)
    assert frames.behaviours == ("buy", "pv")
    rows = frames.interactions.select("user", "item", "behaviour").rows()
    assert rows == [(1, 10, 1), (1, 10, 0), (1, 11, 1), (3, 10, 1)]


def test_an_item_takes_its_most_frequent_category_the_smallest_of_equals(tmp_path):
    make(tmp_path)
    frames = reader().read(tmp_path)
    # 10: 7, 7, 6; 11: 9, 8
    assert dict(frames.items.select("item", "category").rows()) == {
        10: 7,
        11: 8,
        12: 8,
        13: 5,
        14: 5,
    }
    assert frames.remarks == (
        "taobao: 2 items have several categories; each takes its most frequent one",
    )


def test_without_days_all_rows_stay(tmp_path):
    make(tmp_path)
    frames = reader("pv", "buy", "cart", "fav", first_day=None, last_day=None).read(tmp_path)
    assert len(frames.interactions) == len(ROWS) and frames.dropped == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "1,10,7,click,1511600000",
            "line 2 has 'click' for behaviour, expected one of pv, buy, cart, fav",
        ),
        ("1,10,7,pv", "line 2 has 4 fields, expected 5"),
        ("1,10,7,pv,1511600000,9", "line 2 has 6 fields, expected 5"),
        ("1,10,,pv,1511600000", "line 2 has '' for category, expected Int32"),
        ("user,item,category,behaviour,time", "line 2 has 'user' for user, expected Int32"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    make(tmp_path, [ROWS[0], line, *ROWS[1:]])
    with pytest.raises(UserError, match=rf"UserBehavior.csv {message}"):
        reader().read(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(
        UserError,
        match=r"UserBehavior.csv is missing and needs a login"
        r".*tianchi.aliyun.com/dataset/649.*paths.data_dir",
    ):
        reader().fetch(tmp_path)
    make(tmp_path, []).write_text("")
    with pytest.raises(UserError, match=r"UserBehavior.csv is empty"):
        reader().read(tmp_path)
    make(tmp_path)
    with pytest.raises(
        UserError,
        match=r"none of 8 rows is left: change data.reader.behaviours=\['pv'\], "
        r"data.reader.first_day=2018",
    ):
        reader(first_day="2018-11-25", last_day=None).read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"behaviours": ["pv", "click"]},
            r"data.reader.behaviours must be some of pv, buy, cart, fav, each once, "
            r"got \['pv', 'click'\]",
        ),
        ({"behaviours": []}, "data.reader.behaviours must be some of"),
        ({"behaviours": ["pv", "pv"]}, "each once"),
        (
            {"first_day": "25.11.2017"},
            "data.reader.first_day=25.11.2017 is not a day: write 2017-11-25",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Taobao(**{"behaviours": ["pv"], "first_day": None, "last_day": None, **settings})


def test_behaviours_reach_the_batch(tmp_path):
    rows = [
        f"{user},{item},1,{'buy' if item == 2 else 'pv'},{START + item}"
        for user in (1, 2)
        for item in (1, 2, 3, 4)
    ]
    make(tmp_path, rows)
    data = make_data(tmp_path, reader("pv", "buy"), data_dir=str(tmp_path))
    data.setup()
    assert data.meta["behaviours"] == ["pv", "buy"]
    assert data.tables["interactions/behaviour"].tolist() == [0, 1, 0, 0, 0, 1, 0, 0]


@pytest.mark.data
def test_official_counts():
    if not (REAL / "taobao").exists():
        pytest.skip(f"no taobao in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader("pv", "buy", "cart", "fav").read(REAL)
    assert (len(frames.interactions), frames.interactions["user"].n_unique()) == (110_300, 66_454)
    assert (frames.interactions["item"].n_unique(), frames.items["category"].n_unique()) == (
        84_793,
        3_913,
    )
