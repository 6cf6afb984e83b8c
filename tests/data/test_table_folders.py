"""Folders of files, as Spark, BigQuery and Snowflake write a table."""

import polars as pl
import pytest

from tests.helpers.table import reader
from twotower.errors import UserError

CLICKS = pl.DataFrame(
    {
        "user_id": [1, 1, 2, 2, 3, 3],
        "item_id": [10, 11, 10, 12, 11, 12],
        "timestamp": [1600000000, 1600000010, 1600090000, 1600090010, 1600180000, 1600180010],
    }
)
DAYS = ["2020-09-13", "2020-09-14", "2020-09-15"]


def write(folder, files):
    for name, frame in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if frame is None:
            path.write_text("")
        else:
            frame.write_parquet(path)


def parts(frame=CLICKS):
    return [frame[:2], frame[2:4], frame[4:]]


SPARK = {
    "clicks/_SUCCESS": None,
    "clicks/._SUCCESS.crc": None,
    "clicks/_temporary/0/part-00000.parquet": CLICKS,
    "clicks/_delta_log/00000.json": None,
    **{
        f"clicks/day={day}/part-{number:05}-4f2a.c000.snappy.parquet": part
        for number, (day, part) in enumerate(zip(DAYS, parts(), strict=True))
    },
}
BIGQUERY = {f"clicks/{number:012}.parquet": part for number, part in enumerate(parts())}
SNOWFLAKE = {
    f"clicks/2020/{number}/data_01b_0_{number}_0.snappy.parquet": part
    for number, part in enumerate(parts())
}


@pytest.mark.parametrize("files", [SPARK, BIGQUERY, SNOWFLAKE], ids=["spark", "bigquery", "snow"])
@pytest.mark.parametrize("pattern", ["clicks", "clicks/", "click?", "clicks/**/*.parquet"])
def test_a_folder_is_one_table(tmp_path, files, pattern):
    write(tmp_path, files)
    if "**" in pattern and files is SPARK:
        pattern = "clicks/day=*"
    found = reader(interactions=pattern).read(tmp_path).interactions
    assert found.select("user", "item", "time").rows() == CLICKS.rows()
    sources = reader(interactions=pattern).sources(tmp_path)
    assert len(sources) == 3 and all(path.is_file() for path in sources)


def test_partitions_are_columns(tmp_path):
    write(tmp_path, SPARK)
    frames = reader(interactions="clicks", context={"day": "categorical"}).read(tmp_path)
    assert frames.context_features == {"day": "categorical"}
    assert frames.interactions["context.day"].to_list() == [day for day in DAYS for _ in range(2)]
    # the part before the first wildcard names no column, what follows does
    for pattern in ("clicks/*/*.parquet", "clicks/day=*/*"):
        frames = reader(interactions=pattern, context={"day": "categorical"}).read(tmp_path)
        assert frames.interactions["context.day"].n_unique() == 3
    with pytest.raises(UserError, match="has no column day"):
        reader(interactions=f"clicks/day={DAYS[0]}", context={"day": "categorical"}).read(tmp_path)


def test_what_is_no_data_and_what_is_behind_a_link(tmp_path):
    write(tmp_path, SPARK)
    every = reader(interactions="clicks").sources(tmp_path)
    for pattern in ("clicks/**", "clicks/**/*.*"):
        assert reader(interactions=pattern).sources(tmp_path) == every
    (tmp_path / "clicks" / f"day={DAYS[0]}").rename(tmp_path / "elsewhere")
    (tmp_path / "clicks" / f"day={DAYS[0]}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "clicks")
    found = reader(interactions="clicks").read(tmp_path).interactions
    assert found.select("user", "item", "time").rows() == CLICKS.rows()


def test_values_of_partitions(tmp_path):
    folders = ["shop=a%20b/kind=1", "shop=c%2Fd/kind=2", "shop=__HIVE_DEFAULT_PARTITION__/kind=3"]
    names = [f"clicks/{folder}/x.parquet" for folder in folders]
    write(tmp_path, dict(zip(names, parts(), strict=True)))
    frames = reader(interactions="clicks", context={"shop": None, "kind": "numeric"}).read(tmp_path)
    found = frames.interactions.sort("user")
    assert found["context.shop"].to_list() == ["a b", "a b", "c/d", "c/d", None, None]
    assert found["context.kind"].to_list() == [1, 1, 2, 2, 3, 3]


def test_a_column_of_the_files_takes_precedence(tmp_path):
    files = [part.with_columns(day=pl.lit("own")) for part in parts()]
    files[1] = files[1].with_columns(day=pl.lit("other"))
    names = [f"clicks/day={day}/x.parquet" for day in DAYS]
    write(tmp_path, dict(zip(names, files, strict=True)))
    found = (
        reader(interactions="clicks", context={"day": "categorical"}).read(tmp_path).interactions
    )
    assert found["context.day"].to_list() == ["own"] * 2 + ["other"] * 2 + ["own"] * 2


def test_a_partition_may_be_the_behaviour(tmp_path):
    names = [f"clicks/event={event}/x.parquet" for event in ("view", "buy", "view")]
    names[2] = "clicks/event=view/y.parquet"
    write(tmp_path, dict(zip(names, parts(), strict=True)))
    settings = {"columns__behaviour": "event", "behaviours": ["view", "buy"]}
    frames = reader(interactions="clicks", **settings).read(tmp_path)
    by_user = frames.interactions.sort("user").group_by("user", maintain_order=True)
    assert by_user.agg(pl.col("behaviour").first())["behaviour"].to_list() == [0, 1, 0]


def test_files_that_differ_are_named(tmp_path):
    other = parts()
    other[2] = other[2].rename({"timestamp": "time"})
    names = [f"clicks/{number}.parquet" for number in range(3)]
    write(tmp_path, dict(zip(names, other, strict=True)))
    message = "0.parquet and .*2.parquet have different columns .not in both: time, timestamp"
    with pytest.raises(UserError, match=message):
        reader(interactions="clicks").read(tmp_path)
    lists = [part.with_columns(more=pl.lit(1)) for part in parts()]
    lists[1] = lists[1].with_columns(more=pl.lit([1]))
    write(tmp_path, dict(zip(names, lists, strict=True)))
    with pytest.raises(UserError, match=r"0.parquet and .*1.parquet have different columns"):
        reader(interactions="clicks").read(tmp_path)
