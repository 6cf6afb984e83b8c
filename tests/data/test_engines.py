"""DuckDB prepares the same data as Polars, bit for bit, and leaves nothing behind."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.conftest import ROOT, make_data
from tests.helpers.frames import make_frames
from tests.helpers.table import reader
from twotower.data import blocks
from twotower.data.prepare import engine
from twotower.data.prepare.engine import Choice
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.on_disk import OnDisk
from twotower.data.prepare.options import Options
from twotower.data.prepare.prepare import prepare
from twotower.data.splits import Given, LeaveLastOut, RandomRatio, Temporal, TemporalFolds
from twotower.errors import UserError

pytest.importorskip("duckdb")

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data")).absolute()
SPLITS = {
    "leave_last_out": LeaveLastOut(1),
    "temporal": Temporal(0.6, 0.8, 1),
    "successive": Temporal(0.5, 0.8, 0, "successive"),
    "folds": TemporalFolds(3, 1, 0.4, 0),
    "random_ratio": RandomRatio(0.2, 0.2, 3, 1),
    "given": Given(0.1, 4),
}
FILTERS = {
    "all": Filters(None, "all", 0),
    "first": Filters(None, "first", 0),
    "last": Filters(None, "last", 2),
    "rated": Filters(2.5, "first", 0),
    "core": Filters(1.5, "first", 4),
    "thin": Filters(None, "first", 3, 7, 5),
}
RATINGS = [None, float("nan"), 1.0, 2.0, 3.0, 4.0, 5.0]
DEVICES = [None, "phone", "desk"]


def world(labels, seed):
    """Every kind of column, with gaps, repeated pairs and equal times, in no order."""
    rng = np.random.default_rng(seed)
    num, users, items = 900, 41, 29
    user, item = rng.integers(0, users, num), rng.integers(0, items, num)
    name = (lambda place: [f"ü{n % 7}-{n}" for n in place]) if labels else (lambda place: place * 3)
    shown = [name(rng.integers(0, items + 3, rng.integers(0, 4))) for _ in range(num)]
    time = rng.integers(0, 60, num)
    interactions = pl.DataFrame(
        {
            "user": name(user),
            "item": name(item),
            "time": time / 2 if labels else time,
            "value": [RATINGS[n] for n in rng.integers(0, 7, num)],
            "behaviour": pl.Series(rng.integers(0, 2, num), dtype=pl.UInt8),
            "weight": rng.random(num),
            "shown": [list(map(str, ids)) if labels else [int(n) for n in ids] for ids in shown],
            "part": pl.Series(rng.choice(3, num, p=[0.8, 0.1, 0.1]), dtype=pl.Int8),
            "context.device": [DEVICES[n] for n in rng.integers(0, 3, num)],
            "context.age": rng.normal(size=num),
            "context.place": pl.Series(rng.choice(["a", "b"], num)).cast(pl.Categorical),
        },
        strict=False,
    )
    ids = (interactions[side].unique(maintain_order=True) for side in ("user", "item"))
    tables = {side: {side: own} for side, own in zip(("user", "item"), ids, strict=True)}
    more = {"category": [[None, "x", "y"][n % 3] for n in range(len(tables["item"]["item"]))]}
    return make_frames(
        [],
        tables["user"],
        tables["item"] | more,
        columns=("user", "item", "time"),
        interactions=interactions,
        behaviours=("view", "buy"),
        context_features={"device": "categorical", "age": "numeric", "place": "categorical"},
        dropped={"outside the dates": 3},
    )


def assert_same(found, expected):
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found.arrays[name], array, name, strict=True)
    assert found.meta == expected.meta
    for own, other in ((found.tables, expected.tables), (found.encodings, expected.encodings)):
        assert own.keys() == other.keys()
        for name, table in other.items():
            assert_frame_equal(own[name], table)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("filters", FILTERS)
def test_the_same_data(tmp_path, monkeypatch, split, filters):
    place = list(SPLITS).index(split) + list(FILTERS).index(filters)
    frames = world(labels=place % 2 == 0, seed=place)
    options = Options(FILTERS[filters], SPLITS[split], 5, (0.5, 0.8), split == "folds")
    if place % 3:
        options = options._replace(history_features=("category", "behaviour", "time_gap"))
    expected = prepare(frames, options)
    monkeypatch.setattr(blocks, "BLOCK", 64)
    assert_same(prepare(frames, options), expected)
    assert_same(prepare(frames, options, engine=OnDisk(tmp_path, 0.5)), expected)
    assert sum(path.suffix == ".parquet" for path in tmp_path.iterdir()) == 0


CLICKS = """\
user,item,time,rating,event,weight,mode
7,b,2024-01-02,4,view,1.5,x
7,a,2024-01-01,,buy,2,y
8,a,2024-01-03,1,view,1,x
8,c,2024-01-03,5,view,.5,x
9,c,2024-01-04,2,hide,1,y
7,c,2024-01-05,2,buy,1,y
8,b,2024-01-05,3,view,1,x
"""
COLUMNS = {"columns__value": "rating", "columns__behaviour": "event", "columns__weight": "weight"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"behaviours": ["view", "buy"]},
        {"behaviours": ["view"], "drop_incomplete": True},
        {"context": {"mode": None}},
    ],
    ids=str,
)
def test_a_table_is_read_to_the_disk(tmp_path, changes):
    text = CLICKS + "9,,2024-01-06,3,view,1,x\n" * bool(changes.get("drop_incomplete"))
    (tmp_path / "clicks.csv").write_text(text)
    own = reader(interactions="clicks.csv", **COLUMNS, **changes)
    expected, path = own.read(tmp_path), tmp_path / "own.parquet"
    found = own.read(tmp_path, path)
    assert isinstance(found.interactions, pl.LazyFrame) != ("context" in changes)
    assert_frame_equal(found.interactions.lazy().collect(), expected.interactions)
    assert found.remarks == expected.remarks and found.dropped == expected.dropped
    assert found.where(2) == expected.where(2)
    for own, other in ((found.users, expected.users), (found.items, expected.items)):
        assert_frame_equal(own, other)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9,a,2024-01-06,x,view,1,x", "clicks.csv line 9: rating 'x'"),
        ("9,a,soon,1,view,1,x", "clicks.csv line 9: time 'soon'"),
        ("9,,2024-01-06,1,view,1,x", "clicks.csv line 9 has no item"),
        ("9,a,1970-01-06,1,view,1,x", "clicks.csv line 9 has the time"),
        ("9,a,2024-01-06,1,view,-1,x", "clicks.csv line 9 has the weight -1"),
        (f"9,{'a' * 2000},2024-01-06,1,view,1,x", "clicks.csv line 9 has a item of 2,000"),
    ],
    ids=["number", "time", "gap", "1970", "weight", "long"],
)
def test_the_same_errors(tmp_path, line, message):
    (tmp_path / "clicks.csv").write_text(f"{CLICKS}{line}\n")
    options = Options(Filters(None, "first", 0), LeaveLastOut(1), 5, (0.5, 0.8))
    found = []
    for path in (None, tmp_path / "own.parquet"):
        with pytest.raises(UserError, match=re.escape(message)) as error:
            frames = reader(interactions="clicks.csv", **COLUMNS).read(tmp_path, path)
            prepare(frames, options)
        found.append(str(error.value))
    assert found[0] == found[1]


def on_disk(folder, **changes):
    return make_data(folder, engine="duckdb", **changes)


def test_the_cache_is_the_same_and_nothing_is_left(tmp_path):
    for name, engine_name in (("a", "polars"), ("b", "duckdb")):
        make_data(tmp_path / name, engine=engine_name).setup()
    folders = [sorted((tmp_path / name / "cache").iterdir()) for name in "ab"]
    found = [
        {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "meta.json"}
        for folder, _ in folders
    ]
    assert found[0] == found[1] and len(found[0]) > 10
    names = [[path.name for path in both] for both in folders]  # the folder and its lock
    assert names[0] == names[1] and len(names[0]) == 2


@pytest.mark.parametrize("folder", ["user=3/time=5", "a[b]*c?d", "it's ü"])
def test_names_of_folders_mean_nothing(tmp_path, folder):
    expected = make_data(tmp_path)
    expected.setup()
    inside = on_disk(tmp_path / folder)
    beside = on_disk(tmp_path / "other", engine_folder=str(tmp_path / folder))
    for data in (inside, beside):
        data.setup()
        assert data.fingerprint == expected.fingerprint


def test_names_of_columns_mean_nothing(tmp_path):
    names = ["Dev", "dev", 'q"u', "select"]
    frames = world(labels=True, seed=1)
    extra = {f"context.{name}": ["x", "y", "z"] * 300 for name in names}
    frames = frames._replace(
        interactions=frames.interactions.with_columns(
            **{k: pl.Series(v) for k, v in extra.items()}
        ),
        context_features=dict.fromkeys(names, "categorical"),
    )
    options = Options(FILTERS["first"], SPLITS["leave_last_out"], 5, (0.5, 0.8))
    assert_same(prepare(frames, options, engine=OnDisk(tmp_path, 0.5)), prepare(frames, options))


def test_caches_that_share_a_folder_of_temporary_files_keep_apart(tmp_path):
    one, other = (
        on_disk(tmp_path / name, engine_folder=str(tmp_path / "work")).preparation for name in "ab"
    )
    assert one.folder.name == other.folder.name and one._work != other._work


def test_ids_of_other_types_are_refused(tmp_path):
    frames = world(labels=True, seed=1)
    kind = pl.Enum(sorted(set(frames.interactions["user"]), reverse=True))
    frames = frames._replace(
        interactions=frames.interactions.with_columns(pl.col("user").cast(kind))
    )
    options = Options(FILTERS["first"], SPLITS["leave_last_out"], 5, (0.5, 0.8))
    with pytest.raises(UserError, match="ids of users must be whole numbers or text, got Enum"):
        prepare(frames, options, engine=OnDisk(tmp_path, 0.5))


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    data = on_disk(tmp_path)
    data.setup()
    left = tmp_path / "cache" / f".{data.preparation.folder.name}.work"
    left.mkdir()
    (left / "raw.parquet").write_text("half")
    on_disk(tmp_path).setup()
    assert not left.exists()
    left.mkdir()
    on_disk(tmp_path).preparation.load(force=True)
    assert not left.exists()


@pytest.mark.parametrize("is_sink", [False, True])
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, is_sink):
    def full(*_, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(("os.posix_fallocate", "polars.LazyFrame.sink_parquet")[is_sink], full)
    with pytest.raises(UserError, match="cannot be written .No space left on device.: free"):
        on_disk(tmp_path).setup()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_failure_of_duckdb_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Choice, "limit_gb", lambda self: 0.0001)
    with pytest.raises(UserError, match=r"DuckDB, in .*cache: .*data.engine_memory_gb$") as error:
        on_disk(tmp_path).setup()
    assert "\n" not in str(error.value)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_named_by_its_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="free space there, or set data.engine_folder to another"):
        on_disk(tmp_path, engine_folder=str(tmp_path / "file")).setup()


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "bytes").write_text("5000000\n")
    monkeypatch.setattr(engine, "LIMITS", (tmp_path / "max", tmp_path / "none"))
    assert engine.memory_bytes() > 10**8
    monkeypatch.setattr(engine, "LIMITS", (tmp_path / "max", tmp_path / "bytes"))
    assert engine.memory_bytes() == 5_000_000


def test_temporary_files_go_where_they_are_sent(tmp_path, monkeypatch):
    seen = []
    known = OnDisk.code
    monkeypatch.setattr(OnDisk, "code", lambda self, *rest: seen.append(self) or known(self, *rest))
    elsewhere = tmp_path / "elsewhere"
    on_disk(tmp_path, engine_folder=str(elsewhere), engine_memory_gb=0.7).setup()
    assert seen[0].folder.parent == elsewhere and seen[0].memory_gb == 0.7
    assert not list(elsewhere.iterdir())


def test_chosen_by_the_size_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "memory_bytes", lambda: 10 * engine.GB)
    (tmp_path / "small.csv").write_text("a")
    big = {}
    for name, size in (("big.csv", 2), ("big.parquet", 0.8)):
        path = big[name] = tmp_path / name
        with path.open("wb") as file:
            file.truncate(int(size * engine.GB))  # a hole, which takes no room
    auto = Choice()
    assert auto.made([tmp_path / "small.csv", tmp_path / "not there"]) == ("polars", "")
    for path in big.values():
        name, line = auto.made([path])
        assert name == "duckdb" and re.search(r"some 6 of 10 GB: DuckDB prepares on the disk", line)
    assert Choice("polars").made(big.values()) == ("polars", "")
    assert auto.limit_gb() == 4 and Choice(memory_gb=2.5).limit_gb() == 2.5
    monkeypatch.setattr(engine, "_is_installed", lambda: False)
    name, line = auto.made([big["big.csv"]])
    assert name == "polars" and "pip install 'twotower[duckdb]'" in line
    with pytest.raises(UserError, match="data.engine=duckdb needs DuckDB: pip install"):
        Choice("duckdb").check()
    with pytest.raises(UserError, match="data.engine"):
        Choice("spark").check()
    with pytest.raises(UserError, match="data.engine_memory_gb"):
        Choice(memory_gb=0).check()


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "tests.data.kill_preparation", str(tmp_path), "2", "duckdb"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert found.returncode == 0 and int(found.stdout.split()[1]) > 5, found.stdout + found.stderr


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "settings"),
    [
        ("ml-100k", ["data=movielens_100k"]),
        ("ml-1m", ["data=movielens_1m", "data/split=temporal", "data.split.min_history=0"]),
        ("sasrec", ["data=sasrec_movielens_1m", "data.max_per_user=20"]),
        ("s3rec", ["data=s3rec_beauty", "data/split=random_ratio"]),
        ("globo", ["data=globo", "data.history_features=[category,time_gap]"]),
        ("amazon-2014", ["data=amazon_musical_instruments", "data/split=temporal_folds"]),
        (
            "taobao",
            ["data=taobao", "data.k_core=0", "data.split.val_from=0.8", "data.split.test_from=0.9"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_the_same_of_data_sets(tmp_path, script, folder, settings):
    if not (REAL / folder).exists():
        pytest.skip(f"no {folder} in {REAL}; set TWOTOWER_DATA_DIR")
    found = []
    for name in ("polars", "duckdb"):
        places = (
            f"data.engine={name}",
            f"paths.cache_dir={tmp_path / name}",
            f"paths.data_dir={REAL}",
        )
        run = script("prepare", *settings, *places)
        assert run.returncode == 0, run.stderr
        (path,) = (tmp_path / name).glob("*/meta.json")
        meta = json.loads(path.read_text())
        found.append({key: meta[key] for key in meta if key not in ("seconds", "stages")})
    assert found[0] == found[1]
