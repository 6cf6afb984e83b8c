"""The same tables prepare to the same data in every format that Polars, pandas and Spark write.

Files of pandas are emulated: whole numbers with gaps as floats with ``NaN``, times in nanoseconds,
labels as categories, the index as a column.
"""

import gzip
import json
import lzma
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.table import reader
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.options import Options
from twotower.data.prepare.prepare import prepare
from twotower.data.splits import LeaveLastOut

START = datetime(2024, 5, 31)
OPTIONS = Options(Filters(2.5, "first", 0), LeaveLastOut(1), 4, (0.5, 0.8))
PANDAS_INDEX = {"parquet": "__index_level_0__", "csv": "Unnamed: 0"}

# Worlds


@st.composite
def worlds(draw):
    """Three tables: clicks, users and items, with gaps in all but the ids."""
    make_user, make_item = (
        draw(st.sampled_from(kinds))
        for kinds in (
            [lambda n: n + 1, lambda n: f"u{n}", lambda n: f"0{n}"],
            [lambda n: 2**33 + n, lambda n: f"B00{n}X", lambda n: f"i {n}é", lambda n: f'a,"{n}"'],
        )
    )
    clicks = []
    for user in range(draw(st.integers(3, 5))):
        for place in range(draw(st.integers(4, 6))):
            item = draw(st.integers(0, 7))
            rating = draw(
                st.sampled_from([None, 2.0, 3.0, 4.5]) if place < 2 else st.sampled_from([3.0, 4.5])
            )
            seconds = draw(st.integers(0, 10**6)) if place else 0
            clicks.append(
                (make_user(user), make_item(item), START + timedelta(seconds=seconds), rating)
            )
        clicks += [
            (make_user(user), make_item(8 + n), START + timedelta(days=20 + n), 4.0)
            for n in range(3)
        ]
    kind = pl.Series([row[0] for row in clicks]).dtype, pl.Series([row[1] for row in clicks]).dtype
    table = pl.DataFrame(
        clicks,
        schema={
            "user_id": kind[0],
            "item_id": kind[1],
            "timestamp": pl.Datetime("us"),
            "rating": pl.Float64,
        },
        orient="row",
    )
    size = 11
    items = pl.DataFrame(
        {
            "item_id": [make_item(n) for n in range(size)],
            "category": draw(
                st.lists(
                    st.sampled_from([None, "a", "b, c", "9"]), min_size=size - 2, max_size=size - 2
                )
            )
            + ["a", "9"],
            "price": draw(
                st.lists(
                    st.sampled_from([None, 1.5, 2.0, 3.25]), min_size=size - 2, max_size=size - 2
                )
            )
            + [0.5, 7.5],
            "stock": draw(
                st.lists(st.sampled_from([None, 1, 2]), min_size=size - 2, max_size=size - 2)
            )
            + [1, 2],
        },
        schema_overrides={"category": pl.String, "price": pl.Float64, "stock": pl.Int64},
    )
    return table, items


# Writers: of a typed table to one file


def text(frame, missing="", separator=",", times="%Y-%m-%d %H:%M:%S", **options):
    columns = [
        pl.col(name).dt.strftime(times)
        for name, dtype in frame.schema.items()
        if dtype == pl.Datetime
    ]
    return frame.with_columns(columns).write_csv(null_value=missing, separator=separator, **options)


def json_lines(frame, gaps):
    """One object a line; gaps are ``null`` or absent."""
    rows = []
    for row in frame.with_columns(pl.col(pl.Datetime).dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts():
        if gaps == "absent":
            row = {name: value for name, value in row.items() if value is not None}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(rows)


def pandas(frame, index):
    """Whole numbers with gaps become floats, gaps ``NaN``, times nanoseconds, labels categories."""
    columns = [pl.int_range(pl.len()).alias(index)]
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if dtype.is_integer() and frame[name].has_nulls():
            column = column.cast(pl.Float64)
        if dtype.is_float() or (dtype.is_integer() and frame[name].has_nulls()):
            column = column.fill_null(float("nan"))
        if dtype == pl.Datetime:
            column = column.cast(pl.Datetime("ns"))
        if dtype == pl.String and name == "category":
            column = column.cast(pl.Categorical)
        columns.append(column)
    return frame.select(columns[1:] + columns[:1])


def spark(frame):
    """Times in UTC, fractions of decimals' type, no index."""
    return frame.with_columns(
        pl.col(pl.Datetime).dt.replace_time_zone("UTC"),
        pl.col("^price$|^rating$").cast(pl.Decimal(10, 2)),
    )


def shards(write, suffix):
    """The first rows in one file, the others in another, as Spark names them."""

    def written(frame, folder, name):
        (folder / name).mkdir()
        (folder / name / "_SUCCESS").write_text("")
        middle = len(frame) // 2
        for number, part in enumerate((frame[:middle], frame[middle:])):
            write(part, folder / name / f"part-{number:05}.{suffix}")
        return f"{name}/*.{suffix}"

    return written


def single(write, suffix):
    def written(frame, folder, name):
        write(frame, folder / f"{name}.{suffix}")
        return f"{name}.{suffix}"

    return written


def zst(content, path):
    """Text as it is, compressed by Polars."""
    lines = pl.DataFrame({"line": content.split("\n")[:-1]}).lazy()
    lines.sink_csv(
        path,
        include_header=False,
        quote_style="never",
        separator="\x1f",
        compression="zstd",
        check_extension=False,
    )


FORMATS = {
    "csv": single(lambda frame, path: path.write_text(text(frame)), "csv"),
    "csv, NULL": single(lambda frame, path: path.write_text(text(frame, "NULL")), "csv"),
    "csv of pandas": single(
        lambda frame, path: path.write_text(text(pandas(frame, "Unnamed: 0"), "nan")), "csv"
    ),
    "csv, seconds": single(
        lambda frame, path: path.write_text(
            text(frame.with_columns(pl.col(pl.Datetime).dt.epoch("s")), "\\N")
        ),
        "csv",
    ),
    "csv of a sheet": single(
        lambda frame, path: path.write_text(
            "\ufeffsep=;\r\n" + text(frame, separator=";", line_terminator="\r\n")
        ),
        "csv",
    ),
    "csv, all quoted": single(
        lambda frame, path: path.write_text(text(frame, quote_style="always")), "csv"
    ),
    "tsv": single(
        lambda frame, path: path.write_text("# clicks\n" + text(frame, "\\N", "\t")), "tsv"
    ),
    "csv.gz": single(
        lambda frame, path: path.write_bytes(gzip.compress(text(frame).encode())), "csv.gz"
    ),
    "csv.xz": single(
        lambda frame, path: path.write_bytes(lzma.compress(text(frame).encode())), "csv.xz"
    ),
    "csv.zst": single(lambda frame, path: zst(text(frame), path), "csv.zst"),
    "csv shards": shards(lambda frame, path: path.write_text(text(frame)), "csv"),
    "parquet": single(lambda frame, path: frame.write_parquet(path), "parquet"),
    "parquet of pandas": single(
        lambda frame, path: pandas(frame, "__index_level_0__").write_parquet(
            path, compression="snappy"
        ),
        "parquet",
    ),
    "parquet of spark": shards(
        lambda frame, path: spark(frame).write_parquet(path, compression="snappy"), "snappy.parquet"
    ),
    "parquet shards of two": shards(
        lambda frame, path: (
            pandas(frame, "i").drop("i") if "00000" in path.name else frame
        ).write_parquet(path),
        "parquet",
    ),
    "arrow": single(lambda frame, path: frame.write_ipc(path), "arrow"),
    "feather": single(
        lambda frame, path: pandas(frame, "i").drop("i").write_ipc(path, compression="lz4"),
        "feather",
    ),
    "json lines": single(lambda frame, path: path.write_text(json_lines(frame, "null")), "jsonl"),
    "json lines.gz": single(
        lambda frame, path: path.write_bytes(gzip.compress(json_lines(frame, "null").encode())),
        "jsonl.gz",
    ),
    "json shards": shards(lambda frame, path: path.write_text(json_lines(frame, "absent")), "json"),
}


def prepared(folder, world, name):
    """Everything that a model sees, and what people count."""
    folder.mkdir()
    paths = {
        role: FORMATS[name](frame, folder, role)
        for role, frame in zip(("interactions", "items"), world, strict=True)
    }
    ignore = ["Unnamed: 0", "__index_level_0__"]
    frames = reader(**paths, ignore=ignore).read(folder)
    arrays, tables, meta, encodings = prepare(frames, OPTIONS)
    ids = {side: tables[side][side].cast(pl.String).to_list() for side in ("user", "item")}
    counts = {
        key: meta[key]
        for key in ("num_users", "num_interactions", "categories", "raw", "dropped", "schema")
    }
    # fields that are left out of JSON lines come in the order in which they are first seen
    counts["schema"] = {
        key: sorted(part) if key in ("user", "item") else part
        for key, part in meta["schema"].items()
    }
    words = {
        key: table["value"].cast(pl.String).to_list()
        for key, table in encodings.items()
        if "value" in table.columns
    }
    return arrays, ids, counts, words


def assert_all_alike(folder, world):
    expected = prepared(folder / "0", world, "parquet")
    for number, name in enumerate(FORMATS, start=1):
        arrays, *rest = prepared(folder / str(number), world, name)
        assert rest == list(expected[1:]), name
        assert arrays.keys() == expected[0].keys(), name
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, expected[0][key], err_msg=f"{name}: {key}")


@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(world=worlds())
def test_every_format_prepares_to_the_same_data(tmp_path_factory, world):
    assert_all_alike(tmp_path_factory.mktemp("world"), world)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_every_format_prepares_to_the_same_data_in_many_worlds(tmp_path_factory, world):
    assert_all_alike(tmp_path_factory.mktemp("world"), world)
