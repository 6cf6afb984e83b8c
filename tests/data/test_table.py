"""The user's own tables, by hand: ids, times, formats, columns, features and behaviours."""

import gzip
import json
import lzma
import re
from datetime import date, datetime, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_data
from tests.helpers.table import CLICKS, read, reader, rows, with_times
from twotower.data.prepare.filters import check_interactions
from twotower.data.splits import Given
from twotower.errors import UserError

# Ids


def test_ids_stay_what_they_are_in_the_file(tmp_path):
    frames = read(tmp_path)
    assert rows(frames) == [(7, "007", 1600000000), (7, "010", 1600000060), (9, "007", 1600000030)]
    assert (
        frames.interactions.schema == {"user": pl.Int32, "item": pl.String, "time": pl.Int64}
        and frames.time_unit == "s"
    )


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["5", "-3"], [5, -3]),
        (["5", "3000000000"], [5, 3000000000]),  # beyond 32 bits
        (["5", "05"], ["5", "05"]),
        (["5", "+5"], ["5", "+5"]),
        (["5", "5.0"], [5, 5]),  # as pandas and decimal types write whole numbers
        (["5", "99999999999999999999"], ["5", "99999999999999999999"]),  # beyond 64 bits
        (["5", "x"], ["5", "x"]),
    ],
)
def test_whole_numbers_only_if_all_survive_it(tmp_path, ids, expected):
    frames = read(tmp_path, "user,item\n" + "".join(f"1,{item}\n" for item in ids))
    assert frames.interactions["item"].to_list() == expected


def test_one_leading_zero_in_the_last_shard_decides_for_all(tmp_path):
    (tmp_path / "b.csv").write_text("item,user,time\n03,1,1600000005\n")  # columns in another order
    (tmp_path / "a.csv").write_text("user,item,time\n1,5,1600000009\n")
    assert rows(reader(interactions="*.csv").read(tmp_path)) == [
        (1, "5", 1600000009),
        (1, "03", 1600000005),
    ]


@pytest.mark.parametrize(
    ("items", "expected"), [("5,6", [5, 6]), ("5,06", ["5", "6"]), ("5,x", ["5", "6"])]
)
def test_tables_agree_about_ids(tmp_path, items, expected):
    table = "item,brand\n" + "".join(f"{item},b{item}\n" for item in items.split(","))
    frames = read(tmp_path, "user,item\n1,5\n1,6\n", table)
    assert (
        frames.interactions["item"].to_list() == expected
        and frames.items["item"].dtype == frames.interactions["item"].dtype
    )


def test_whole_numbers_are_the_same_ids_whatever_their_type(tmp_path):
    pl.DataFrame(
        {"user": ["1", "2"], "item": [5, 6], "time": [1600000000, 1600000001]}
    ).write_parquet(tmp_path / "a.parquet")
    frames = reader(interactions="a.parquet").read(tmp_path)
    assert rows(frames, "user", "item") == [(1, 5), (2, 6)]


def test_numbers_that_pandas_made_decimal_are_whole_again(tmp_path):
    pl.DataFrame({"user": [1.0, 2.0], "item": [1.5, 2.0]}).write_parquet(tmp_path / "a.parquet")
    assert rows(reader(interactions="a.parquet").read(tmp_path), "user", "item") == [
        (1, "1.5"),
        (2, "2"),
    ]


ids = st.lists(
    st.text("0123456789ab-. ", min_size=1, max_size=6).filter(lambda text: text.strip() == text),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(ids=ids)
def test_no_id_is_changed(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("ids")
    frames = read(folder, "user,item\n" + "".join(f"u,{item}\n" for item in ids))
    expected = [re.sub(r"^(-?\d+)\.0+$", r"\1", item) for item in ids]
    assert frames.interactions["item"].cast(pl.String).to_list() == expected


# Times


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        (("1600000000", "1600000001"), "s", [1600000000, 1600000001]),
        (("1600000000000", "1600000000001"), "ms", [1600000000000, 1600000000001]),
        (("1600000000000000",), "us", [1600000000000000]),
        (("1600000000000000001",), "ns", [1600000000000000001]),  # more digits than a float holds
        (("1600000000.0", "1.6e9"), "us", [1600000000000000, 1600000000000000]),
        (("1600000000.25", "1600000000"), "us", [1600000000250000, 1600000000000000]),
        (("1", "2", "711"), "step", [1, 2, 711]),
        (("2020-09-13", "2020-09-14"), "us", [1599955200000000, 1600041600000000]),
        (("20200913", "20200914"), "step", [20200913, 20200914]),
        (("2020-09-13 12:26:40",), "us", [1600000000000000]),
        (("2020-09-13 12:26:40 UTC",), "us", [1600000000000000]),
        (
            ("2020-09-13T12:26:40.5Z", "2020-09-13T12:26:40Z"),
            "us",
            [1600000000500000, 1600000000000000],
        ),
        (("2020-09-13T14:26:40+02:00",), "us", [1600000000000000]),
        (("2020/09/13 12:26",), "us", [1599999960000000]),
    ],
)
def test_times_are_understood(tmp_path, times, unit, expected):
    frames = read(tmp_path, with_times(*times))
    assert (frames.time_unit, frames.interactions["time"].to_list()) == (unit, expected)


def test_what_is_said_of_times_is_taken(tmp_path):
    frames = read(tmp_path, with_times("31.05.2024 10:00"), time_format="%d.%m.%Y %H:%M")
    assert frames.interactions["time"].to_list() == [
        int(datetime(2024, 5, 31, 10, tzinfo=timezone.utc).timestamp()) * 10**6
    ]
    assert read(tmp_path, with_times("1600000000"), time_unit="step").time_unit == "step"
    assert read(tmp_path, with_times("3", "1"), time_unit="order").time_unit == "order"


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([datetime(2020, 9, 13, 12, 26, 40)], "us", 1600000000000000),
        ([date(2020, 9, 13)], "us", 1599955200000000),
        (
            pl.Series([datetime(2020, 9, 13, 12, 26, 40)])
            .dt.replace_time_zone("Europe/Paris")
            .dt.cast_time_unit("ns"),
            "us",
            1599992800000000,
        ),
        (pl.Series([1600000000.5]), "us", 1600000000500000),
    ],
)
def test_typed_times(tmp_path, values, unit, expected):
    pl.DataFrame({"user": [1], "item": [2], "time": values}).write_parquet(tmp_path / "a.parquet")
    frames = reader(interactions="a.parquet").read(tmp_path)
    assert (frames.time_unit, frames.interactions["time"].to_list()) == (unit, [expected])


def test_without_times_the_order_is_that_of_the_file(tmp_path):
    frames = read(tmp_path, "user,item\n1,5\n2,6\n1,4\n")
    assert (frames.time_unit, frames.interactions["time"].to_list()) == ("order", [0, 1, 2])
    assert any("each user's order is that of the file" in remark for remark in frames.remarks)
    assert read(tmp_path, time_unit="step", clicks="user,item\n1,5\n").time_unit == "step"


# Formats

TABLE = pl.DataFrame(
    {
        "user": ["a", "b", "b"],
        "item": ["x;1", "y", 'z "q"'],
        "time": [1600000000, 1600000060, 1600000030],
    }
)


def packed(folder, name):
    """``TABLE`` in the format that the ending says."""
    path = folder / name
    text = TABLE.write_csv(separator={"tsv": "\t", "psv": "|"}.get(name.split(".")[1], ","))
    lines = "".join(json.dumps(row) + "\n" for row in TABLE.to_dicts())
    if name.endswith("parquet"):
        TABLE.write_parquet(path)
    elif name.endswith("arrow"):
        TABLE.write_ipc(path)
    elif name.endswith("zst"):
        TABLE.lazy().sink_csv(path, compression="zstd")
    else:
        content = (lines if "jsonl" in name else text).encode()
        path.write_bytes(
            {"gz": gzip.compress, "xz": lzma.compress}.get(name.split(".")[-1], bytes)(content)
        )
    return name


@pytest.mark.parametrize(
    "name",
    [
        "a.csv",
        "a.tsv",
        "a.psv",
        "a.csv.gz",
        "a.csv.xz",
        "a.csv.zst",
        "a.parquet",
        "a.arrow",
        "a.jsonl",
        "a.jsonl.gz",
        "a.jsonl.xz",
    ],
)
def test_every_format_gives_the_same(tmp_path, name):
    frames = reader(interactions=packed(tmp_path, name)).read(tmp_path)
    assert rows(frames) == TABLE.rows() and frames.time_unit == "s"


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_that_of_the_header(tmp_path, name, separator):
    (tmp_path / name).write_text(CLICKS.replace(",", separator))
    assert len(rows(reader(interactions=name).read(tmp_path))) == 3


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("user,item,time\r\n1,5,1600000000\r\n", {}),
        ("\ufeffuser,item,time\n1,5,1600000000\n", {}),
        ("user, item, time\n1, 5, 1600000000\n", {}),
        ("user,item,time\n\n1,5,1600000000\n\n", {}),
        ('"user","item","time"\n"1","5","1600000000"\n', {}),
        ("1,5,1600000000\n", {"header": ["user", "item", "time"]}),
        ("1~5~1600000000\n", {"header": ["user", "item", "time"], "separator": "~"}),
        ('user,item,time,title\n1,5,1600000000,5" nail\n', {"quote": None}),
    ],
)
def test_dialects_of_csv(tmp_path, text, changes):
    assert rows(read(tmp_path, text, **changes)) == [(1, 5, 1600000000)]


def test_json_lines_of_changing_types(tmp_path):
    lines = [
        '{"user": 1, "item": "x", "time": 1600000000}',
        '{"time": 1600000001.0, "user": "2", "item": "y", "extra": {"a": [1]}}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert rows(reader(interactions="a.jsonl").read(tmp_path)) == [
        (1, "x", 1600000000),
        (2, "y", 1600000001),
    ]


def test_paths_are_below_the_data_folder_or_else_the_working_folder(tmp_path, monkeypatch):
    for folder in ("data", "work"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.csv").write_text(CLICKS)
    monkeypatch.chdir(tmp_path / "work")
    for path in (
        "data.csv",
        "work.csv",
        "wor*.csv",
        str(tmp_path / "work" / "work.csv"),
        ["data.csv"],
    ):
        assert len(rows(reader(interactions=path).read(tmp_path / "data"))) == 3, path
    assert reader(interactions="*.csv", items=["none.csv"]).sources(tmp_path / "data") == [
        tmp_path / "data" / "data.csv"
    ]


def test_marks_of_the_writer_among_shards_are_passed_over(tmp_path):
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "part-1.csv").write_text(CLICKS)
    assert len(rows(reader(interactions="*").read(tmp_path))) == 3


# Columns


@pytest.mark.parametrize(
    "header",
    [
        "userId,movieId,ts",
        "visitorid,itemid,timestamp",
        "reviewerID,asin,unixReviewTime",
        "User ID,Product_ID,event_time",
        "uid,sku,date",
    ],
)
def test_common_names_are_known(tmp_path, header):
    assert len(rows(read(tmp_path, with_times("1600000000", header=header)))) == 1


def test_what_is_stated_wins(tmp_path):
    clicks = "user_id,member,item_id,thing,when\n1,2,3,4,1600000000\n"
    frames = read(
        tmp_path, clicks, columns__user="member", columns__item="thing", columns__time="when"
    )
    assert rows(frames) == [(2, 4, 1600000000)]


def test_all_that_was_taken_is_said(tmp_path):
    items = "id,cat,name,price,note\n" + "".join(
        f"{i:03d},c{i % 2},n{i},{i}.5,text {i}\n" for i in range(60)
    )
    clicks = "user,item,time,device\n" + "".join(
        f"1,{i:03d},{1600000000 + i},ios\n" for i in range(61)
    )
    frames = read(tmp_path, clicks, items)
    said = "\n".join(frames.remarks)
    for column, meaning in {
        "user": "user",
        "time": "time, seconds since 1970",
        "device": "not used",
        "id": "item",
        "cat": "category",
        "name": "title, for people",
        "price": "numeric feature",
        "note": "left out: free text",
    }.items():
        (line,) = [line for line in said.splitlines() if line.startswith(f"│   {column} ")]
        assert meaning in line
    assert "0.5 … 59.5" in said and "000, 001, 002" in said
    assert "1 of 61 items have no row in items.csv" in said


# Features

ITEMS = pl.DataFrame(
    {
        "item_id": [f"{i:03d}" for i in range(100)],
        "category": [f"c{i % 3}" for i in range(100)],
        "title": [f"title {i}" for i in range(100)],
        "brand": [f"b{i % 7}" for i in range(100)],
        "price": [f"{i}.25" if i else "" for i in range(100)],
        "year": [str(1950 + i % 60) for i in range(100)],
        "stars": [str(i % 5) for i in range(100)],
        "brand_id": [str(i % 40) for i in range(100)],
        "zip": [f"{i % 30:05d}" for i in range(100)],
        "tags": ["|".join(f"t{(i + k) % 9}" for k in range(i % 3)) for i in range(100)],
        "born": [f"2020-01-{1 + i % 28:02d}" for i in range(100)],
        "description": [f"a text of its own {i}" for i in range(100)],
        "same": ["x"] * 100,
        "nothing": [""] * 100,
        "": [str(i) for i in range(100)],
        "half price": [str(i / 2) for i in range(100)],
        "history": [f"h{i % 4}" for i in range(100)],
    }
)
KINDS = {
    "brand": "categorical",
    "price": "numeric",
    "year": "numeric",
    "stars": "categorical",
    "brand_id": "categorical",
    "zip": "categorical",
    "tags": "multi",
    "born": "numeric",
    "half_price": "numeric",
    "history_": "categorical",
    "category": "categorical",
}
FIVE = "user_id,item_id\n" + "".join(f"1,{i:03d}\n" for i in range(5))


def test_kinds_are_inferred(tmp_path):
    frames = read(tmp_path, FIVE, ITEMS.write_csv())
    assert frames.item_features == KINDS
    row = frames.items.row(2, named=True)
    assert {name: row[name] for name in KINDS} == {
        "brand": "b2",
        "price": 2.25,
        "year": 1952.0,
        "stars": "2",
        "brand_id": "2",
        "zip": "00002",
        "tags": ["t2", "t3"],
        "born": 18264.0,  # 2020-01-03, days since 1970: 50 years with 12 leap days and 2 days
        "half_price": 1.0,
        "history_": "h2",
        "category": "c2",
    }
    assert row["item"] == "002" and row["title"] == "title 2"
    assert frames.items["price"][0] is None and frames.items["tags"].to_list()[:2] == [None, ["t1"]]


def test_kinds_of_typed_columns(tmp_path):
    items = pl.DataFrame(
        {
            "item": [1, 2, 3],
            "tags": [["a", "b"], [], None],
            "new": [True, False, None],
            "weight": [0.5, float("inf"), 2.0],
            "made": [date(1970, 1, 2), date(1970, 1, 3), None],
            "shape": [{"w": 1}] * 3,
            "category": [["a", "b"], ["b"], ["c", "a"]],
        }
    )
    items.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "clicks.csv").write_text("user,item\n1,1\n1,2\n")
    frames = reader(interactions="clicks.csv", items="items.parquet").read(tmp_path)
    assert frames.item_features == {
        "tags": "multi",
        "new": "categorical",
        "weight": "numeric",
        "made": "numeric",
        "categories": "multi",
    }
    assert frames.items["weight"].to_list() == [0.5, None, 2.0] and frames.items[
        "made"
    ].to_list() == [1.0, 2.0, None]
    # a stands in two lists, b in two, c in one: ties go to the first in the alphabet
    assert frames.items["category"].to_list() == ["a", "b", "a"]


def test_declared_kinds_and_ignored_columns(tmp_path):
    changes = {
        "item_features": {"stars": "numeric", "description": "categorical", "brand": "multi"},
        "ignore": ["ha*", "born"],
    }
    frames = read(tmp_path, FIVE, ITEMS.write_csv(), list_separator=None, **changes)
    kinds = {
        "stars": "numeric",
        "description": "categorical",
        "brand": "multi",
        "tags": "categorical",
    }
    assert frames.item_features == {
        **{name: kind for name, kind in KINDS.items() if name not in ("born", "half_price")},
        **kinds,
    }
    assert frames.items["brand"].to_list()[3] == ["b3"] and frames.items["stars"][4] == 4.0


def test_features_of_users(tmp_path):
    users = (
        "id,age,town\n1,20.5,Rome\n2,30.5,Oslo\n1,20.5,Rome\n"  # a repeated row says nothing new
    )
    frames = read(tmp_path, "user,item\n1,5\n2,5\n", users=users)
    assert frames.user_features == {"age": "numeric", "town": "categorical"}
    assert frames.users["user"].to_list() == [1, 2] and frames.users["town"].to_list() == [
        "Rome",
        "Oslo",
    ]


def test_the_category_may_stand_in_the_interactions(tmp_path):
    clicks = "user,item,category\n1,5,b\n2,5,a\n3,5,b\n1,6,b\n2,6,a\n1,7,\n"
    frames = read(tmp_path, clicks)
    # item 5: b twice; item 6: a tie, the first in the alphabet; item 7: none
    assert dict(frames.items.select("item", "category").rows()) == {5: "b", 6: "a"}
    assert frames.item_features == {"category": "categorical"}
    assert any("2 items have several" in remark for remark in frames.remarks)
    known = read(tmp_path, clicks, "item,category,brand\n5,z,y\n6,z,y\n7,z,x\n")
    assert known.items["category"].to_list() == ["z", "z", "z"]
    joined = read(tmp_path, clicks, "item,brand\n7,y\n5,x\n6,y\n")
    assert joined.items.select("item", "category", "brand").rows() == [
        (7, None, "y"),
        (5, "b", "x"),
        (6, "a", "y"),
    ]


def test_items_may_have_no_categories(tmp_path):
    assert read(tmp_path).items.schema["category"] == pl.String


# Behaviours, values, parts, gaps

EVENTS = "user,item,time,event\n" + "".join(
    f"1,{item},{1600000000 + item},{event}\n"
    for item, event in enumerate(["view", "view", "buy", "view", "cart"])
)


def test_behaviours(tmp_path):
    alike = read(tmp_path, EVENTS)
    assert (
        alike.behaviours == ()
        and len(alike.interactions) == 5
        and "behaviour" not in alike.interactions.columns
    )
    assert any("event holds view 60.0%" in remark for remark in alike.remarks)
    one = read(tmp_path, EVENTS, behaviours=["view"])
    assert one.behaviours == () and one.interactions["item"].to_list() == [0, 1, 3]
    assert one.dropped == {"behaviours other than view": 2}
    two = read(tmp_path, EVENTS, behaviours=["buy", "view"])
    assert two.behaviours == ("buy", "view") and two.interactions["behaviour"].to_list() == [
        1,
        1,
        0,
        1,
    ]
    assert two.dropped == {"behaviours other than buy, view": 1}


def test_values_are_ratings(tmp_path):
    clicks = "user,item,rating\n1,5,4.5\n1,6,3\n1,7,\n"
    assert read(tmp_path, clicks).interactions["value"].to_list() == [4.5, 3.0, None]
    assert (
        "value" not in read(tmp_path, "user,item,value\n1,5,blue\n").interactions.columns
    )  # only its name says so


def test_weights_are_a_stated_column(tmp_path):
    clicks = "user,item,weight\n1,5,4.5\n1,6,0\n"
    assert "weight" not in read(tmp_path, clicks).interactions.columns  # it may be a parcel's
    frames = read(tmp_path, clicks, columns__weight="weight")
    assert frames.interactions["weight"].to_list() == [4.5, 0]
    with pytest.raises(UserError, match="line 3.* not a number"):
        read(tmp_path, "user,item,w\n1,5,1\n1,6,much\n", columns__weight="w")
    gap = "user,item,w\n1,5,1\n1,6,\n"
    with pytest.raises(UserError, match="line 3 has no weight"):
        read(tmp_path, gap, columns__weight="w")
    frames = read(tmp_path, gap, columns__weight="w", drop_incomplete=True)
    assert frames.dropped == {"rows without user, item or weight": 1}
    frames = read(tmp_path, clicks.replace("4.5", "-4.5"), columns__weight="weight")
    with pytest.raises(UserError, match=r"clicks.csv line 2 has the weight -4.5"):
        check_interactions(frames)


def test_parts_of_a_given_split(tmp_path):
    clicks = "user,item,split\n1,1,train\n1,2,Train\n1,3,valid\n1,4,test\n"
    (tmp_path / "raw").mkdir()
    frames = read(tmp_path / "raw", clicks, columns__part="split")
    assert frames.interactions["part"].to_list() == [0, 0, 1, 2]
    data = make_data(
        tmp_path, reader(interactions="clicks.csv", columns__part="split"), split=Given(0.0, 0)
    )
    data.setup()
    assert [len(data.tables[f"position/{part}"]) for part in ("train", "val", "test")] == [2, 1, 1]


def test_incomplete_rows_can_be_dropped(tmp_path):
    clicks = (
        "user,item,time,event\n,1,1600000000,a\n1,,1600000000,a\n1,2,soon,a\n"
        "1,3,,b\n1,4,1600000000,a\n"
    )
    frames = read(tmp_path, clicks, drop_incomplete=True)
    assert rows(frames, "user", "item") == [(1, 4)]
    assert frames.dropped == {"rows without user, item or time": 4}
    with pytest.raises(
        UserError, match=r"clicks.csv line 7 has the time 1700000000000"
    ):  # lines are those of the file
        check_interactions(
            read(tmp_path, clicks + "1,5,1700000000000,a\n", drop_incomplete=True, behaviours=["a"])
        )


# The whole way


def test_raw_ids_come_back_and_new_shards_are_seen(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.csv").write_text(
        "user,item,time\n"
        + "".join(f"0{u},{i:03d},{1600000000 + i}\n" for u in range(3) for i in range(4))
    )
    (raw / "items.csv").write_text("item,title\n" + "".join(f"{i:03d},T{i}\n" for i in range(4)))
    data = make_data(tmp_path, reader(interactions="a*.csv", items="items.csv"))
    data.setup()
    assert data.ids["item"].rows() == [(f"{i:03d}", f"T{i}", None) for i in range(4)]
    assert data.ids["user"]["user"].to_list() == ["00", "01", "02"]
    (raw / "a2.csv").write_text("user,item,time\n09,000,1600000000\n")
    again = make_data(tmp_path, reader(interactions="a*.csv", items="items.csv"))
    again.setup()
    assert again.ids["user"]["user"].to_list() == ["00", "01", "02", "09"]
