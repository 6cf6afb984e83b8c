"""Files as programs write them: lines before the header, line ends, shards of different types."""

import gzip
import itertools
import os
from datetime import date, datetime, timezone

import polars as pl
import pytest

from tests.helpers.table import reader, rows
from twotower.errors import UserError

CLICKS = "user_id,item_id,timestamp\n1,10,1600000000\n1,11,1600000001\n2,10,1600000002\n"
EXPECTED = [(1, 10, 1600000000), (1, 11, 1600000001), (2, 10, 1600000002)]


def read(folder, content, name="a.csv", **changes):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return reader(interactions=name, **changes).read(folder)


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\n" + CLICKS.replace(",", ";"),
        '"sep=;"\r\n' + CLICKS.replace(",", ";").replace("\n", "\r\n"),
        "\ufeffSEP=\t\n" + CLICKS.replace(",", "\t"),
        "sep=,\n# from the shop\n" + CLICKS,
        "# exported on 2024-05-31, by me\n#\n\n" + CLICKS,
        "% made by hand\n// twice\n" + CLICKS,
        '# an odd " mark\n' + CLICKS,
        "\n\n" + CLICKS,
        CLICKS.replace("\n", "\r\n", 2),
        CLICKS.replace("\n", "\r\r\n"),
        CLICKS.replace("\n", ",\n"),
        CLICKS.replace("\n", ",\n", 1),
        CLICKS.rstrip(),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_stands_around_the_rows_is_passed_over(tmp_path, content, packed):
    data = gzip.compress(content.encode()) if packed else content
    assert rows(read(tmp_path, data, "a.csv.gz" if packed else "a.csv")) == EXPECTED


def test_without_a_header_comments_are_passed_over_too(tmp_path):
    content = "# user item time\n" + CLICKS.split("\n", 1)[1]
    assert rows(read(tmp_path, content, header=["user", "item", "time"])) == EXPECTED


def test_a_header_behind_a_comment_mark_is_to_be_stated(tmp_path):
    with pytest.raises(UserError, match=r"data\.reader\.header=\[user,item,time\]"):
        read(tmp_path, "#" + CLICKS)
    assert rows(read(tmp_path, "#" + CLICKS, header=["user", "item", "time"])) == EXPECTED


@pytest.mark.parametrize("before", ["", "# one\n# two\n", "sep=,\n"])
def test_lines_are_counted_from_the_first(tmp_path, before):
    line = 4 + before.count("\n")
    with pytest.raises(UserError, match=rf"a\.csv line {line} has no item"):
        read(tmp_path, before + CLICKS.replace("2,10,", "2,,"))


def test_an_id_may_begin_as_a_comment(tmp_path):
    frames = read(tmp_path, CLICKS.replace("1,10", "#1,10"))
    assert rows(frames, "user") == [("#1",), ("1",), ("2",)]


# Shards


def shards(folder, frames, **changes):
    for place, frame in enumerate(frames):
        frame.write_parquet(folder / f"{place}.parquet")
    return reader(interactions="*.parquet", **changes).read(folder)


def clicks(item, time=None):
    num = len(item)
    time = [1600000000 + place for place in range(num)] if time is None else time
    return pl.DataFrame({"user": [1] * num, "item": item, "time": time})


BIG = 2**53 + 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([10, 11], ["a", "12"], ["10", "11", "a", "12"]),
        ([10, 11], [12.0, 13.0], [10, 11, 12, 13]),
        ([10.0, 11.5], ["a"], ["10", "11.5", "a"]),
        ([BIG], ["12"], [BIG, 12]),
        (pl.Series([10], dtype=pl.UInt8), pl.Series([-5], dtype=pl.Int64), [10, -5]),
        (
            pl.Series(["a"], dtype=pl.Categorical),
            pl.Series(["b"], dtype=pl.Enum(["b"])),
            ["a", "b"],
        ),
        (pl.Series(["a"], dtype=pl.Categorical), [7], ["a", "7"]),
    ],
)
def test_ids_of_two_types_are_of_one(tmp_path, one, other, expected):
    parts = [clicks(one), clicks(other)]
    sizes = [len(one), len(other)]
    there = shards(tmp_path, parts).interactions["item"].to_list()
    back = shards(tmp_path, parts[::-1]).interactions["item"].to_list()
    assert there == expected and back == expected[sizes[0] :] + expected[: sizes[0]]


def test_dates_of_two_kinds(tmp_path):
    fine = datetime(2024, 5, 31, 12, 0, 0, 7)
    kinds = [
        pl.Series([date(2024, 5, 31)]),
        pl.Series([fine], dtype=pl.Datetime("us")),
        pl.Series([fine.replace(microsecond=0)], dtype=pl.Datetime("ms")),
        pl.Series([fine.replace(tzinfo=timezone.utc)]).dt.convert_time_zone("Asia/Tokyo"),
    ]
    start = int(datetime(2024, 5, 31, tzinfo=timezone.utc).timestamp()) * 10**6
    expected = [start, start + 43_200_000_007, start + 43_200_000_000, start + 43_200_000_007]
    for order in itertools.permutations(range(4)):
        frames = shards(tmp_path, [clicks([place], kinds[place]) for place in order])
        assert dict(
            zip(frames.interactions["item"], frames.interactions["time"], strict=True)
        ) == dict(enumerate(expected))
        assert frames.time_unit == "us"


def test_prices_and_tags_of_two_types(tmp_path):
    (tmp_path / "clicks.csv").write_text(
        "user,item,time\n" + "".join(f"1,{item},{item}\n" for item in range(6))
    )
    tables = [
        pl.DataFrame(
            {
                "item": [0, 1, 2],
                "price": [1, 2, 30],
                "tags": [[1], [2], []],
                "note": [None, None, None],
            }
        ),
        pl.DataFrame(
            {
                "item": [3, 4, 5],
                "price": [4.5, None, 6.0],
                "tags": [["1"], ["x"], None],
                "note": ["a", "b", "a"],
            }
        ),
    ]
    for order in (tables, tables[::-1]):
        for place, table in enumerate(order):
            table.write_parquet(tmp_path / f"items{place}.parquet")
        items = (
            reader(interactions="clicks.csv", items="items*.parquet")
            .read(tmp_path)
            .items.sort("item")
        )
        assert items["price"].to_list() == [1, 2, 30, 4.5, None, 6]
        assert items["tags"].to_list() == [["1"], ["2"], [], ["1"], ["x"], None]
        assert items["note"].to_list() == [None, None, None, "a", "b", "a"]


def test_text_and_typed_shards_together(tmp_path):
    for first, second in (("a", "b"), ("b", "a")):
        folder = tmp_path / first
        folder.mkdir()
        (folder / f"{first}.csv").write_text(CLICKS)
        pl.DataFrame({"user_id": [3], "item_id": [12], "timestamp": [1600000003]}).write_parquet(
            folder / f"{second}.parquet"
        )
        frames = reader(interactions=[f"{first}.csv", f"{second}.parquet"]).read(folder)
        assert rows(frames) == [*EXPECTED, (3, 12, 1600000003)]
        back = reader(interactions=[f"{second}.parquet", f"{first}.csv"]).read(folder)
        assert rows(back) == [(3, 12, 1600000003), *EXPECTED]


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a\.csv is not an ordinary file"):
        reader(interactions="a.csv").read(tmp_path)


# JSON lines

LINES = [
    f'{{"user_id":{user},"item_id":{item},"timestamp":{time},"rating":2.5}}'
    for user, item, time in EXPECTED
]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(LINES),
        "\r\n\r\n".join(LINES),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_as_programs_write_them(tmp_path, content, packed):
    data = gzip.compress(content.encode()) if packed else content
    frames = read(tmp_path, data, "a.jsonl.gz" if packed else "a.jsonl")
    assert rows(frames) == EXPECTED
    assert frames.interactions["value"].to_list() == [2.5] * 3


def test_nan_in_json_lines_is_refused_by_line(tmp_path):
    with pytest.raises(UserError, match=r"line 2 is not JSON \(NaN is not allowed, write null\)"):
        read(tmp_path, "\n".join(LINES[:1] + [LINES[1].replace("2.5", "NaN")]), "a.jsonl")


def test_durations_of_two_precisions(tmp_path):
    times = [pl.Series([1, 2]).cast(pl.Duration(unit)) for unit in ("ms", "us")]
    found = shards(tmp_path, [clicks([1, 2], time) for time in times]).interactions
    assert found["time"].to_list() == [0.001, 0.002, 1e-6, 2e-6]
