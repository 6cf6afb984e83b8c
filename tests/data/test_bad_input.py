"""Input that cannot be used: one line names place and cure, and nothing is left behind."""

import gzip
import lzma
import os
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ROOT, make_data
from twotower.data.readers.table import Table
from twotower.data.splits import Given, Temporal
from twotower.errors import UserError

HEADER = "user_id,item_id,timestamp"
NOW = int(time.time())
ROWS = [
    f"u{user},{item:03d},{1_600_000_000 + 1000 * user + item}"
    for user in range(6)
    for item in range(6)
]
GOOD = "\n".join([HEADER, *ROWS, ""])
ITEMS = "\n".join(
    ["item_id,category,price", *[f"{item:03d},c{item % 2},{item}.5" for item in range(6)], ""]
)


def rows(*changed, header=HEADER):
    """The good file with other rows from line 3 on."""
    return "\n".join([header, ROWS[0], *changed, *ROWS[1 + len(changed) :], ""])


def frame():
    return pl.read_csv(GOOD.encode(), schema_overrides={"item_id": pl.String})


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def half(packed):
    """Cut short, as a copy that broke off; the data within are long enough to have begun."""
    return packed[: len(packed) // 2]


def zstd(folder):
    frame().lazy().sink_csv(folder / "whole.zst", compression="zstd")
    return half((folder / "whole.zst").read_bytes())


def parquet(folder):
    frame().write_parquet(folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


CLICKS = ("data.reader.interactions=clicks.csv",)
BOTH = (*CLICKS, "data.reader.items=items.csv")
NOISE = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
# name: files, settings, what the line must say
CASES = {
    "no setting": ({}, (), ["data=table needs your file", "data.reader.interactions=clicks.csv"]),
    "no such file": (
        {"click.csv": GOOD},
        CLICKS,
        ["data.reader.interactions=clicks.csv: there is no such file", "did you mean click.csv?"],
    ),
    "no file matches": (
        {"a.csv": GOOD},
        ("data.reader.interactions=logs/*.csv",),
        ["logs/*.csv", "no such file", "paths.data_dir"],
    ),
    "a folder without data": (
        {"clicks/_a.csv": GOOD, "clicks/.b.csv": GOOD, "clicks/c": GOOD, "clicks/_d/e.csv": GOOD},
        ("data.reader.interactions=clicks",),
        ["clicks is a folder without data: its files need one of the endings .csv,"],
    ),
    "folders of other partitions": (
        {"clicks/day=1/a.csv": GOOD, "clicks/hour=1/a.csv": GOOD},
        ("data.reader.interactions=clicks",),
        ["day=1/a.csv and ", "hour=1/a.csv have different columns (not in both: day, hour)"],
    ),
    "unknown ending": (
        {"clicks.xls": GOOD},
        ("data.reader.interactions=clicks.xls",),
        ["clicks.xls", ".csv", ".parquet"],
    ),
    "missing column": (
        {"clicks.csv": rows(header="user_id,itme_id,timestamp")},
        CLICKS,
        [
            "clicks.csv has no column that looks like the item",
            "did you mean itme_id?",
            "data.reader.columns.item",
        ],
    ),
    "misspelt column": (
        {"clicks.csv": GOOD},
        (*CLICKS, "data.reader.columns.time=timestmp"),
        [
            "data.reader.columns.time=timestmp: ",
            "clicks.csv has no such column (did you mean timestamp?)",
        ],
    ),
    "no header": (
        {"clicks.csv": "\n".join([row[1:] for row in ROWS])},
        CLICKS,
        ["no column that looks like the user", "data.reader.header=[user,item,time]"],
    ),
    "time of the wrong type": (
        {"clicks.csv": rows("u0,001,yesterday")},
        CLICKS,
        [
            "clicks.csv line 3: timestamp 'yesterday' (1 in all) is not a time like the first",
            "rows' (seconds since 1970)",
            "data.reader.drop_incomplete=true",
        ],
    ),
    "times of no format": (
        {"clicks.csv": f"{HEADER}\nu1,i1,31.05.24\n"},
        CLICKS,
        [
            "clicks.csv column timestamp: '31.05.24' is neither a number nor a date",
            "data.reader.time_format",
        ],
    ),
    "rating of the wrong type": (
        {
            "clicks.csv": f"{HEADER},rating\n"
            + "".join(f"{row},{'good' if i == 4 else 4}\n" for i, row in enumerate(ROWS))
        },
        (*CLICKS, "data.reader.columns.value=rating"),
        [
            "clicks.csv line 6: rating 'good' (1 in all) is not a number",
            "data.reader.columns.value",
        ],
    ),
    "feature of the wrong type": (
        {"clicks.csv": GOOD, "items.csv": ITEMS.replace("2.5", "cheap")},
        (*BOTH, "data.reader.item_features={price:numeric}"),
        ["items.csv line 4: price 'cheap' (1 in all) is not a number", "categorical"],
    ),
    "empty": ({"clicks.csv": ""}, CLICKS, ["clicks.csv is empty"]),
    "blank": ({"clicks.csv": "\n\n\n"}, CLICKS, ["clicks.csv is empty"]),
    "header only": ({"clicks.csv": HEADER + "\n"}, CLICKS, ["clicks.csv has a header and no rows"]),
    "items: header only": (
        {"clicks.csv": GOOD, "items.csv": "item_id,price\n"},
        BOTH,
        ["items.csv has a header and no rows"],
    ),
    "all filtered away": (
        {"clicks.csv": GOOD},
        (*CLICKS, "data.k_core=99"),
        ["no interaction is left of 36", "data.k_core=99", "lower"],
    ),
    "conflicting items": (
        {"clicks.csv": GOOD, "items.csv": ITEMS + "003,c1,99\n003,c1,99\n"},
        BOTH,
        [
            "items.csv has several rows that differ for 1 items",
            "item '003' has the price '3.5' and '99.0'",
            "data.reader.ignore=[price]",
        ],
    ),
    "other items": (
        {"clicks.csv": GOOD, "items.csv": ITEMS.replace("\n0", "\nx")},
        BOTH,
        ["no item of ", "clicks.csv", "items.csv", "data.reader.item_columns.item"],
    ),
    "in the future": (
        {"clicks.csv": rows(f"u0,001,{NOW + 10**7}")},
        CLICKS,
        [f"clicks.csv line 3 has the time {NOW + 10**7}", "in the future", "correct or remove"],
    ),
    "all in the future": (
        {"clicks.csv": "\n".join([HEADER, *[f"u{i},i{i},{NOW + 10**8}" for i in range(9)]])},
        CLICKS,
        ["clicks.csv line 2 has the time", "in the future"],
    ),
    "seconds and milliseconds": (
        {"clicks.csv": rows("u0,001,1600000001000")},
        CLICKS,
        [
            "clicks.csv line 3 has the time 1600000001000",
            "in milliseconds it is 2020-09-13",
            "units are mixed",
        ],
    ),
    "no user": (
        {"clicks.csv": rows(",001,1600000001")},
        CLICKS,
        ["clicks.csv line 3 has no user (1 in all)", "drop_incomplete=true"],
    ),
    "no item": (
        {"clicks.csv": rows("u0,NULL,1600000001")},
        CLICKS,
        ["clicks.csv line 3 has no item", "drop_incomplete=true"],
    ),
    "no time": (
        {"clicks.csv": rows("u0,001,")},
        CLICKS,
        ["clicks.csv line 3 has no time", "drop_incomplete=true"],
    ),
    "no id of an item": (
        {"clicks.csv": GOOD, "items.csv": ITEMS + ",c1,5\n"},
        BOTH,
        ["items.csv line 8 has no item_id", "fill or remove"],
    ),
    "one endless line": (
        {"clicks.csv": "x" * 10_000_000},
        CLICKS,
        ["clicks.csv", "no column that looks like the user"],
    ),
    "an endless field": (
        {"clicks.csv": rows("x" * 10_000_000 + ",001,1600000001")},
        CLICKS,
        ["clicks.csv line 3", "10,000,000 characters"],
    ),
    "more fields": (
        {"clicks.csv": rows("u0,001,1600000001,extra")},
        CLICKS,
        ["clicks.csv line 3 has 4 fields, its header 3", "quote"],
    ),
    "less fields": ({"clicks.csv": rows("u0,001")}, CLICKS, ["clicks.csv line 3 has no time"]),
    "an open quote": (
        {"clicks.csv": rows('"u0,001,1600000001')},
        CLICKS,
        ["clicks.csv", "not closed", "data.reader.quote=null"],
    ),
    "latin-1": (
        {"clicks.csv": rows("é,001,1600000001").encode("latin-1")},
        CLICKS,
        ["clicks.csv line 3 is not UTF-8", "iconv -f latin1"],
    ),
    "utf-16": (
        {"clicks.csv": GOOD.encode("utf-16")},
        CLICKS,
        ["clicks.csv is UTF-16", "iconv -f utf-16"],
    ),
    "binary": ({"clicks.csv": NOISE}, CLICKS, ["clicks.csv is not text", "export"]),
    "an Excel file": (
        {"clicks.csv": b"PK\x03\x04" + NOISE},
        CLICKS,
        ["clicks.csv is a zip archive or an Excel file", "save"],
    ),
    "a Parquet file named .csv": (
        {"clicks.csv": parquet},
        CLICKS,
        ["clicks.csv is a Parquet file: name it .parquet"],
    ),
    "a CSV named .parquet": (
        {"clicks.parquet": GOOD},
        ("data.reader.interactions=clicks.parquet",),
        ["clicks.parquet cannot be read as Parquet"],
    ),
    "truncated gzip": (
        {"clicks.csv.gz": half(gzip.compress(GOOD.encode()))},
        ("data.reader.interactions=clicks.csv.gz",),
        ["clicks.csv.gz is truncated or damaged", "again"],
    ),
    "truncated xz": (
        {"clicks.csv.xz": half(lzma.compress(GOOD.encode()))},
        ("data.reader.interactions=clicks.csv.xz",),
        ["clicks.csv.xz is damaged or cut short", "again"],
    ),
    "truncated zst": (
        {"clicks.csv.zst": zstd},
        ("data.reader.interactions=clicks.csv.zst",),
        ["clicks.csv.zst is truncated or damaged", "again"],
    ),
    "truncated Parquet": (
        {"clicks.parquet": lambda folder: half(parquet(folder))},
        ("data.reader.interactions=clicks.parquet",),
        ["clicks.parquet cannot be read as Parquet", "again"],
    ),
    "damaged Parquet": (
        {
            "clicks.parquet": lambda folder: (
                parquet(folder)[:8] + NOISE[:300] + parquet(folder)[308:]
            )
        },
        ("data.reader.interactions=clicks.parquet",),
        ["clicks.parquet"],
    ),
    "one bad shard": (
        {
            "logs/a.csv.gz": gzip.compress(GOOD.encode()),
            "logs/b.csv.gz": half(gzip.compress(GOOD.encode())),
        },
        ("data.reader.interactions='logs/*.csv.gz'",),
        ["logs/b.csv.gz is truncated or damaged"],
    ),
    "a bad row in a shard": (
        {"logs/a.csv": GOOD, "logs/b.csv": rows("u0,001,soon")},
        ("data.reader.interactions='logs/*.csv'",),
        ["logs/b.csv line 3: timestamp 'soon' (1 in all) is not a time"],
    ),
    "different shards": (
        {"logs/a.csv": GOOD, "logs/b.csv": GOOD.replace("timestamp", "day")},
        ("data.reader.interactions='logs/*.csv'",),
        [
            "logs/a.csv and",
            "logs/b.csv have different columns (not in both: day, timestamp)",
            "files of one kind",
        ],
    ),
    "bad JSON": (
        {"clicks.jsonl": '{"user": 1, "item": 2}\n{"user": 1, "item"\n'},
        ("data.reader.interactions=clicks.jsonl",),
        ["clicks.jsonl line 2 is not JSON (Expecting ':' delimiter", "mend"],
    ),
    "a JSON list": (
        {"clicks.json": '[{"user": 1, "item": 2}]'},
        ("data.reader.interactions=clicks.json",),
        ["clicks.json is one list", "jq"],
    ),
    "deep JSON": (
        {"clicks.jsonl": '{"user": 1, "item": ' + "[" * 100_000 + "]" * 100_000 + "}\n"},
        ("data.reader.interactions=clicks.jsonl",),
        ["clicks.jsonl line 1 is nested too deeply", "mend"],
    ),
    "an unknown behaviour": (
        {"clicks.csv": f"{HEADER},event\n" + "".join(f"{row},view\n" for row in ROWS)},
        (*CLICKS, "data.reader.behaviours=[buy]"),
        ["no row of", "has the event buy; there are view"],
    ),
    "an unknown part": (
        {
            "clicks.csv": f"{HEADER},fold\n"
            + "".join(f"{row},{'later' if i == 3 else 'train'}\n" for i, row in enumerate(ROWS))
        },
        (*CLICKS, "data.reader.columns.part=fold"),
        ["clicks.csv line 5: fold 'later' (1 in all) is none of train, val and test"],
    ),
    "an unknown kind": (
        {"clicks.csv": GOOD, "items.csv": ITEMS},
        (*BOTH, "data.reader.item_features={price:number}"),
        ["item_features.price must be one of categorical, multi, numeric, vector, got 'number'"],
    ),
    "a feature that is not there": (
        {"clicks.csv": GOOD, "items.csv": ITEMS},
        (*BOTH, "data.reader.item_features={brand:categorical}"),
        ["data.reader.item_features: brand is not a column of", "items.csv"],
    ),
    "a text separator": (
        {"clicks.csv": GOOD},
        (*CLICKS, "data.reader.separator='::'"),
        ["data.reader.separator must be one character"],
    ),
    "a split that the data lack": (
        {"clicks.csv": GOOD},
        (*CLICKS, "data/split=given"),
        ["data/split=given: these data come without"],
    ),
    "time split without times": (
        {"clicks.csv": "\n".join(row.rsplit(",", 1)[0] for row in GOOD.splitlines())},
        (*CLICKS, "data/split=temporal"),
        ["data/split=temporal needs times", "leave_last_out"],
    ),
}


IN_DEFAULT_RUN = (
    "no such file",
    "missing column",
    "time of the wrong type",
    "truncated gzip",
    "latin-1",
    "all filtered away",
)


def lay_out(folder, case):
    files, settings, said = CASES[case]
    write(
        folder,
        {
            name: content(folder) if callable(content) else content
            for name, content in files.items()
        },
    )
    return settings, said


def nothing_left(folder):
    return not [
        path.name for path in folder.glob("cache/*") if path.suffix != ".lock"
    ] and not list(folder.rglob("metrics.json"))


@pytest.mark.parametrize("case", CASES)
def test_one_line_that_names_place_and_cure(tmp_path, monkeypatch, case):
    """The reader alone, which takes hundredths of the time that a script takes."""
    settings, said = lay_out(tmp_path, case)
    monkeypatch.chdir(tmp_path)
    reader = yaml.safe_load((ROOT / "conf" / "data" / "table.yaml").read_text())["reader"]
    changes = {}
    for override in OverridesParser.create().parse_overrides(list(settings)):
        *parents, name = override.key_or_group.removeprefix("data.reader.").split(".")
        if override.key_or_group == "data/split":
            changes["split"] = {"given": Given(0.1, 0), "temporal": Temporal(0.8, 0.9, 1)}[
                override.value()
            ]
        elif override.key_or_group.startswith("data.reader."):
            (reader[parents[0]] if parents else reader)[name] = override.value()
        else:
            changes[name] = override.value()
    del reader["_target_"]
    with pytest.raises(UserError) as error:
        make_data(tmp_path, Table(**reader), **changes).setup()
    line = str(error.value)
    assert len(line) < 600 and "\n" not in line
    for words in said:
        assert words in line
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "case",
    [
        case if case in IN_DEFAULT_RUN else pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_scripts_say_it_in_one_line(script, case):
    settings, said = lay_out(script.folder, case)
    run = script("prepare" if len(case) % 2 else "train", "data=table", *settings)
    assert run.returncode == 1, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in run.stderr, (
        run.stderr
    )
    for words in said:
        assert words in lines[0]
    assert nothing_left(script.folder)


AS_NOBODY = """
import os
from contextlib import ExitStack
from pathlib import Path
from twotower.data.own_files.files import open_source
from twotower.data.own_files.text import TextFormat

if os.getuid() == 0:
    os.setuid(65534)
with ExitStack() as stack:
    open_source("interactions", [Path("clicks.csv")], TextFormat(None, None, None), [], stack)
"""


def test_a_file_that_may_not_be_read(tmp_path):
    """As somebody else than root, whom no permission stops."""
    write(tmp_path, {"open/clicks.csv": GOOD})
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "open" / "clicks.csv").chmod(0)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", AS_NOBODY]
    run = subprocess.run(command, cwd=tmp_path / "open", env=env, capture_output=True, text=True)
    line = "clicks.csv may not be read: give yourself the right, chmod u+r clicks.csv"
    assert run.stderr.splitlines()[-1].endswith(f"UserError: {line}"), run.stderr
