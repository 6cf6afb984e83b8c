"""Values of the user's own tables: what is missing, ids, times, numbers and categories."""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest

from tests.conftest import make_data
from tests.helpers.table import read, reader, rows, with_times
from twotower.errors import UserError

NAN = float("nan")


def write(folder, name, table):
    path = folder / name
    if name.endswith("parquet"):
        table.write_parquet(path)
    elif name.endswith("arrow"):
        table.write_ipc(path)
    elif name.endswith("jsonl"):
        table.write_ndjson(path)
    else:
        table.write_csv(path)


def clicks(folder, name="clicks.parquet", changes=None, **columns):
    """Read interactions with these columns."""
    columns = {"user": [1, 2], "item": [5, 6], "time": [1600000000, 1600000001]} | columns
    write(folder, name, pl.DataFrame(columns))
    return reader(interactions=name, **(changes or {})).read(folder)


def items(folder, changes=None, name="items.parquet", **columns):
    """Read a table of two items that have these columns, beside the clicks of one user."""
    (folder / "clicks.csv").write_text("user,item\n1,5\n1,6\n")
    write(folder, name, pl.DataFrame({"item": [5, 6]} | columns))
    return reader(interactions="clicks.csv", items=name, **(changes or {})).read(folder)


# What is missing


@pytest.mark.parametrize("name", ["clicks.parquet", "clicks.arrow", "clicks.jsonl", "clicks.csv"])
@pytest.mark.parametrize("gap", ["", "  ", "NULL", "nan", "NA", "#N/A", "<NA>", None])
def test_an_id_that_is_missing_is_no_id(tmp_path, name, gap):
    ids = {"user": ["a", gap]}
    with pytest.raises(UserError, match=rf"{name} (row|line) \d has no user \(1 in all\)"):
        clicks(tmp_path, name, **ids)
    frames = clicks(tmp_path, name, {"drop_incomplete": True}, **ids)
    assert rows(frames, "user") == [("a",)] and frames.dropped == {
        "rows without user, item or time": 1
    }
    assert "user, 1 missing" in frames.remarks[0]


@pytest.mark.parametrize("dtype", [pl.Float16, pl.Float32, pl.Float64])
def test_nan_is_missing_and_the_other_ids_stay_whole(tmp_path, dtype):
    ids = {"user": pl.Series([7, NAN], dtype=dtype)}
    with pytest.raises(UserError, match="row 2 has no user"):
        clicks(tmp_path, **ids)
    assert rows(clicks(tmp_path, changes={"drop_incomplete": True}, **ids), "user") == [(7,)]


@pytest.mark.parametrize("values", [[-1, 3], [-1.0, 3.0], ["-1", "3"]])
def test_the_words_for_missing_hold_for_numbers_too(tmp_path, values):
    changes = {"missing": [-1], "drop_incomplete": True}
    assert rows(clicks(tmp_path, changes=changes, user=values), "user") == [(3,)]


def test_a_rating_that_is_missing_passes_no_threshold(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    table = {
        "user": [1] * 6,
        "item": range(6),
        "time": range(6),
        "rating": [5.0, NAN, 4.0, 3.0, None, 5.0],
    }
    pl.DataFrame(table).write_parquet(raw / "clicks.parquet")
    data = make_data(tmp_path, reader(interactions="clicks.parquet"), min_value=4)
    data.setup()
    assert len(data.tables["interactions/item"]) == 3
    assert data.meta["dropped"] == {"without a rating": 2, "rated below 4": 1}


@pytest.mark.parametrize("gap", ["", " ", "None", None])
def test_a_category_that_is_missing_is_none(tmp_path, gap):
    assert items(tmp_path, category=["a", gap]).items["category"].to_list() == ["a", None]
    assert items(tmp_path, category=[["a", gap], [gap]]).items["category"].to_list() == ["a", None]


def test_numbers_as_categories(tmp_path):
    assert items(tmp_path, category=[1.0, NAN]).items["category"].to_list() == ["1", None]


# Ids


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1.0, 2.0], [1, 2]),
        ([1.5, 2.0], ["1.5", "2"]),
        ([Decimal("5.00"), Decimal("6.00")], [5, 6]),
        ([Decimal(2**60 + 1), Decimal(1)], [2**60 + 1, 1]),
        (["5.0", "6.0"], [5, 6]),  # as pandas writes whole numbers of a column with gaps
        (["5.00", "6.00"], [5, 6]),
        (["5.0", "6"], [5, 6]),
        (["5.0", "006.0"], ["5", "006"]),
        (["u1 ", " u2"], ["u1", "u2"]),
        (["5", "6"], [5, 6]),
        (pl.Series([1, 2**64 - 1], dtype=pl.UInt64), ["1", "18446744073709551615"]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"]),
        (pl.Series(["a", "b"], dtype=pl.Enum(["b", "a"])), ["a", "b"]),
        ([True, False], ["true", "false"]),
        ([date(2024, 5, 1), date(2024, 5, 2)], ["2024-05-01", "2024-05-02"]),
    ],
)
def test_ids_of_every_type(tmp_path, ids, expected):
    assert clicks(tmp_path, item=ids).interactions["item"].to_list() == expected


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([[1], [2]], ["column user holds lists (list)", "to another column"]),
        ([[0.5], [1.5]], ["column user holds vectors (list)"]),
        ([{"id": 1}, {"id": 2}], ["column user holds nested values (struct)"]),
        ([b"a", b"b"], ["column user holds binary data (binary)", "write it as text"]),
        (
            [2.0**60, 2.0],
            ["row 1: user '1.152921504606847e+18' (1 in all) is not an id that can be kept"],
        ),
        (
            pl.Series([2.0**25, 2.0], dtype=pl.Float32),
            ["row 1: user", "not an id that can be kept", "write ids as whole numbers"],
        ),
        ([float("inf"), 2.0], ["row 1: user 'inf'"]),
        (["1.5E+18", "2"], ["row 1: user '1.5E+18'"]),
    ],
)
def test_what_is_no_id_is_refused_by_name(tmp_path, ids, said):
    with pytest.raises(UserError) as error:
        clicks(tmp_path, user=ids)
    for words in ("clicks.parquet", "data.reader.columns.user", *said):
        assert words in str(error.value)


ODD_IDS = ["a", "b", "c", "[1]", '{"id": 1}']


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.parquet"])
def test_ids_that_look_like_lists_are_text_as_any(tmp_path, name):
    found = clicks(tmp_path, name, user=ODD_IDS, item=range(5), time=range(5)).interactions["user"]
    assert found.to_list() == ODD_IDS


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.jsonl", "clicks.parquet"])
def test_blanks_around_an_id_make_no_other_one(tmp_path, name):
    assert rows(clicks(tmp_path, name, user=["a", "a "]), "user") == [("a",), ("a",)]


def test_shards_that_store_the_same_ids_differently(tmp_path):
    stored = {
        "int": [1, 2],
        "float": [1.0, 2.0],
        "text": ["1", "2"],
        "decimal": [Decimal("1.00"), Decimal("2.00")],
    }
    for name, ids in stored.items():
        ratings = [3, 4] if name == "int" else [3.5, 4.5]
        table = pl.DataFrame({"user": ids, "item": [5, 6], "rating": ratings})
        table.write_parquet(tmp_path / f"{name}.parquet")
    for names in (
        ["int", "float", "text", "decimal"],
        ["decimal", "text", "int"],
        ["float", "int"],
    ):
        frames = reader(interactions=[f"{name}.parquet" for name in names]).read(tmp_path)
        assert frames.interactions["user"].to_list() == [1, 2] * len(names)
        expected = [
            value for name in names for value in ([3.0, 4.0] if name == "int" else [3.5, 4.5])
        ]
        assert frames.interactions["value"].to_list() == expected


# Times


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        (("0.4338", "0.4791", "0.1014"), "step", [0.4338, 0.4791, 0.1014]),
        (("45413.25", "45413.75"), "step", [45413.25, 45413.75]),  # days of a spreadsheet
        (("3", "3.5"), "step", [3.0, 3.5]),
        (("3", "4.00"), "step", [3, 4]),
        (("1.700000000500000000e+09", "1.7e9"), "us", [1700000000500000, 1700000000000000]),
        (("4.338000000000000078e-01", "4.791000000000000148e-01"), "step", [0.4338, 0.4791]),
        (("1600000000.123456", "1600000000"), "us", [1600000000123456, 1600000000000000]),
        (("1600000000000.5", "1600000000000"), "us", [1600000000000500, 1600000000000000]),
        (
            ("2020-09-13 12:26:40 UTC", "2020-09-13 12:26:40.25 UTC"),
            "us",
            [1600000000000000, 1600000000250000],
        ),
        (
            ("2020-09-13 12:26:40.000 +0000", "2020-09-13 14:26:40.250 +0200"),
            "us",
            [1600000000000000, 1600000000250000],
        ),
        (
            ("2020-09-13T12:26:40.000001Z", "2020-09-13"),
            "us",
            [1600000000000001, 1599955200000000],
        ),
    ],
)
def test_fractions_of_times_are_kept(tmp_path, times, unit, expected):
    frames = read(tmp_path, with_times(*times))
    assert (frames.time_unit, frames.interactions["time"].to_list()) == (unit, expected)


def test_a_fraction_after_the_first_rows(tmp_path):
    frames = read(
        tmp_path, with_times(*[str(1600000000 + i) for i in range(11_000)], "1600000000.5")
    )
    assert frames.time_unit == "us" and frames.interactions["time"][-1] == 1600000000500000


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([0.25, 0.5], "step", [0.25, 0.5]),
        ([1600000000.1, 1600000000.0], "us", [1600000000100000, 1600000000000000]),
        ([1600000000.0, 1600000001.0], "s", [1600000000, 1600000001]),
        (
            [Decimal("1600000000.25"), Decimal(1600000000)],
            "us",
            [1600000000250000, 1600000000000000],
        ),
        ([timedelta(milliseconds=1), timedelta(0)], "step", [0.001, 0]),
    ],
)
def test_fractions_of_typed_times(tmp_path, values, unit, expected):
    frames = clicks(tmp_path, time=values)
    assert (frames.time_unit, frames.interactions["time"].to_list()) == (unit, expected)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (("0.5", "inf"), "line 3: time 'inf'"),
        (("10:00:00", "10:00:01"), "neither a number nor a date"),
    ],
)
def test_times_that_cannot_be_kept_are_refused(tmp_path, times, said):
    with pytest.raises(UserError) as error:
        read(tmp_path, with_times(*times))
    assert said in str(error.value) and "data.reader." in str(error.value)


@pytest.mark.parametrize("values", [[time(10), time(11)], [[1], [2]], [True, False]])
def test_a_column_of_times_that_tells_no_time_is_not_passed_over(tmp_path, values):
    with pytest.raises(UserError, match=r"clicks.parquet column time.*data.reader.columns.time"):
        clicks(tmp_path, time=values, day=[date(2024, 5, 1), date(2024, 5, 2)])
    frames = clicks(
        tmp_path,
        changes={"columns__time": "day"},
        time=values,
        day=[date(2024, 5, 1), date(2024, 5, 2)],
    )
    assert frames.interactions["time"].to_list() == [1714521600000000, 1714608000000000]


def test_times_with_fractions_split_and_are_told(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    table = pl.DataFrame({"user": [1, 1, 1, 1], "item": [1, 2, 3, 4], "time": [0.4, 0.1, 0.9, 0.2]})
    table.write_csv(raw / "clicks.csv")
    data = make_data(tmp_path, reader(interactions="clicks.csv"))
    data.setup()
    assert data.ids["item"]["item"].gather(data.tables["interactions/item"].tolist()).to_list() == [
        2,
        4,
        1,
        3,
    ]
    times = data.meta["times"]["parts"]
    assert (times["train"]["first"], times["train"]["last"], times["test"]["first"]) == (
        0.1,
        0.2,
        0.9,
    )


# Numbers, categories and titles


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(tmp_path, separator):
    text = "user;item;rating;time\n1;5;4,5;45413,25\n1;6;3;45413\n".replace(";", separator)
    prices = "item;price\n5;12,50\n6;3,25\n".replace(";", separator)
    frames = read(tmp_path, text, prices)
    assert frames.interactions["value"].to_list() == [4.5, 3.0]
    assert frames.interactions["time"].to_list() == [45413.25, 45413.0]
    assert frames.item_features == {"price": "numeric"} and frames.items["price"].to_list() == [
        12.5,
        3.25,
    ]


def test_a_comma_that_may_group_thousands_is_no_decimal_one(tmp_path):
    frames = read(tmp_path, "user;item\n1;5\n1;6\n", "item;price\n5;1,250\n6;12,000\n")
    assert frames.item_features == {"price": "categorical"}


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([timedelta(seconds=90.5), timedelta(seconds=30)], "numeric", [90.5, 30.0]),
        ([1.0, 2.0], "categorical", ["1", "2"]),
        ([["a", "a "], ["b"]], "multi", [["a", "a"], ["b"]]),
        ([[1, 2], [3, 4]], "multi", [["1", "2"], ["3", "4"]]),
    ],
)
def test_features_of_every_type(tmp_path, values, kind, expected):
    frames = items(tmp_path, feature=values)
    assert (
        frames.item_features == {"feature": kind} and frames.items["feature"].to_list() == expected
    )


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ([[0.5, 1.5], [2.5]], "vectors"),
        (pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int32, 2)), "arrays"),
        ([{"w": 1}, {"w": 2}], "nested values"),
        ([[{"w": 1}], [{"w": 2}]], "lists"),
        ([b"a", b"b"], "binary data"),
        ([time(8), time(9, 30)], "times of day"),
    ],
)
def test_what_is_no_feature_is_left_out_with_a_word(tmp_path, values, holds):
    frames = items(tmp_path, feature=values)
    assert frames.item_features == {} and f"left out: {holds}" in frames.remarks[0]
    with pytest.raises(
        UserError,
        match=rf"item_features.feature=multi: .*items.parquet column feature holds {holds}",
    ):
        items(tmp_path, {"item_features": {"feature": "multi"}}, feature=values)


def test_maps_are_left_out_with_a_word(tmp_path):
    keys = pl.Series([{"k": 1}, {"k": 2}], dtype=pl.Map(pl.String, pl.Int64))
    assert "left out: maps" in items(tmp_path, feature=keys).remarks[0]


def test_a_list_declared_as_something_else_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"item_features.tags=categorical: .*column tags holds lists"
    ):
        items(tmp_path, {"item_features": {"tags": "categorical"}}, tags=[["a"], ["b"]])


def test_a_category_of_items_that_is_nested_is_none(tmp_path):
    values = [{"a": 1}, {"a": 2}]
    frames = items(tmp_path, category=values)
    assert frames.items["category"].to_list() == [] or frames.items["category"].null_count() == len(
        frames.items
    )
    assert "left out: nested values" in frames.remarks[0]
    with pytest.raises(UserError, match="column category holds nested values"):
        items(tmp_path, {"item_columns__category": "category"}, category=values)


def test_titles_that_are_lists(tmp_path):
    assert items(tmp_path, title=[["Alien", "Part 2"], [""]]).items["title"].to_list() == [
        "Alien, Part 2",
        "",
    ]


@pytest.mark.parametrize("stated", ["category", "title"])
def test_a_stated_column_of_items_leaves_the_id_to_be_found(tmp_path, stated):
    frames = items(tmp_path, {f"item_columns__{stated}": "words"}, words=["a", "b"])
    assert frames.items.select("item", stated).rows() == [(5, "a"), (6, "b")]


# Lists among the interactions


@pytest.mark.parametrize("name", ["clicks.parquet", "clicks.jsonl"])
def test_lists_among_the_interactions(tmp_path, name):
    frames = clicks(
        tmp_path,
        name,
        item=[5, 5],
        category=[["toys", "games"], ["games", ""]],
        tags=[[["x"]], [["y"]]],
    )
    assert frames.items.select("item", "category").rows() == [(5, "games")]
    assert "not used: lists (list)" in frames.remarks[0]
    with pytest.raises(UserError, match="column tags holds lists"):
        clicks(tmp_path, name, {"columns__category": "tags"}, tags=[[["x"]], [["y"]]])


def test_nested_ids_of_json_lines(tmp_path):
    lines = [{"user": {"id": 1}, "item": 5}, {"user": {"id": 2}, "item": 6}]
    (tmp_path / "clicks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=r"clicks.jsonl column user holds nested values \(struct\)"):
        reader(interactions="clicks.jsonl").read(tmp_path)


def test_names_choose_among_columns_that_can_be_ids(tmp_path):
    frames = clicks(tmp_path, user=[{"name": "a"}, {"name": "b"}], user_id=[8, 9])
    assert rows(frames, "user") == [(8,), (9,)]


def test_behaviours_that_are_all_missing(tmp_path):
    assert len(clicks(tmp_path, event=["", " "]).interactions) == 2
    with pytest.raises(UserError, match="no row of .* has the event view; there are none"):
        clicks(tmp_path, changes={"behaviours": ["view"]}, event=["", " "])


def test_behaviours_that_are_numbers(tmp_path):
    frames = clicks(tmp_path, changes={"behaviours": [1, 2]}, event=[1.0, 2.0])
    assert frames.behaviours == ("1", "2")


def test_times_of_dates_in_two_precisions(tmp_path):
    for name, unit in (("a", "ms"), ("b", "us")):
        times = pl.Series([datetime(2024, 5, 1, 0, 0, 1)]).cast(pl.Datetime(unit))
        pl.DataFrame({"user": [1], "item": [2], "time": times}).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    frames = reader(interactions="*.parquet").read(tmp_path)
    assert frames.interactions["time"].to_list() == [1714521601000000] * 2


def test_short_floats_hold_no_times(tmp_path):
    times = pl.Series([1.6e9, 1.6e9 + 1], dtype=pl.Float32)
    with pytest.raises(UserError, match="column time holds 32-bit floats, which are too short"):
        clicks(tmp_path, time=times)


def test_a_time_zone_that_is_an_offset(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    moments = pl.Series([1_600_000_000_000, 1_600_000_060_000], dtype=pl.Int64)
    table = pa.table(
        {
            "user": [1, 1],
            "item": [1, 2],
            "time": pa.array(moments.to_list(), pa.timestamp("ms", "+05:30")),
        }
    )
    pq.write_table(table, tmp_path / "clicks.parquet")
    found = reader(interactions="clicks.parquet").read(tmp_path).interactions
    assert found["time"].to_list() == (1000 * moments).to_list()
