"""Interactions with numbers in the place of ids, sorted: on the disk by DuckDB."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from twotower.data.blocks import Column, Storage, blocks, full_disk
from twotower.data.frames import Frames, Reader
from twotower.data.prepare.coding import Coded
from twotower.data.readers.table import Table
from twotower.errors import UserError
from twotower.processes import available_cores
from twotower.wording import clip, one_line

ROW_GROUP = 1_000_000
READ = "interactions.parquet"
INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
IDS = (pl.String, *INTEGERS)
STAYS = "_stays_{}"  # columns that mark what a threshold keeps


class OnDisk:
    """DuckDB; sorts outside of memory, and the arrays are files.

    Args:
        folder: an empty one for temporary files.
        memory_gb: that DuckDB may use.
    """

    def __init__(self, folder: Path, memory_gb: float) -> None:
        self.folder = folder
        self.memory_gb = memory_gb
        self.storage = Storage(folder)

    def read(self, reader: Reader, data_dir: Path) -> Frames:
        """Read what is to be prepared; a user's own table never is in memory as a whole."""
        path = self.folder / READ
        if isinstance(reader, Table):
            return reader.read(data_dir, path)
        frames = reader.read(data_dir)
        self._write(frames.interactions.lazy(), path)
        return frames._replace(interactions=pl.scan_parquet(path, glob=False))

    def _write(self, rows: pl.LazyFrame, path: Path) -> None:
        try:
            rows.sink_parquet(path, row_group_size=ROW_GROUP)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise full_disk(self.folder.parent, error) from error

    def code(self, frames: Frames, thresholds: dict[str, pl.Expr]) -> Coded:
        """See :class:`~twotower.data.prepare.coding.Engine`.

        Raises:
            UserError: if the disk is full or the memory does not suffice.
        """
        import duckdb  # an extra

        try:
            return self._code(frames, thresholds, duckdb)
        except duckdb.Error as error:
            cure = ""
            if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
                cure = (
                    ": free space there, set data.engine_folder to another disk, or raise "
                    "data.engine_memory_gb"
                )
            reason = clip(one_line(error), 200)
            raise UserError(f"DuckDB, in {self.folder.parent}: {reason}{cure}") from error

    def _code(self, frames: Frames, thresholds: dict[str, pl.Expr], duckdb: Any) -> Coded:
        types = frames.interactions.lazy().collect_schema()
        for side in ("user", "item"):
            if types[side] not in IDS:
                raise UserError(f"ids of {side}s must be whole numbers or text, got {types[side]}")
        raw, ordered = self.folder / "raw.parquet", self.folder / "ordered.parquet"
        marks = {STAYS.format(place): mask for place, mask in enumerate(thresholds.values())}
        others = [name for name in types if name not in ("user", "item", "time", "value")]
        safe = {name: f"column_{place}" for place, name in enumerate(others)}  # for SQL
        rows = frames.interactions.lazy().with_columns(**marks).drop("value", strict=False)
        self._write(rows.rename(safe), raw)
        (self.folder / READ).unlink(missing_ok=True)
        settings = {
            "memory_limit": f"{self.memory_gb:.3f}GB",
            "temp_directory": str(self.folder / "spilled"),
            "threads": available_cores(),
        }
        with duckdb.connect(config=settings) as database:
            table = f"read_parquet({_pattern(raw)}, file_row_number=true, hive_partitioning=false)"
            ids = {side: self._ids(database, table, side, types[side]) for side in ("user", "item")}
            kept, sizes = ["true"], [_size(database, table)]
            for mark in marks:
                kept.append(f"coalesce({mark}, false)")
                sizes.append(_size(database, f"{table} where {' and '.join(kept)}"))
            columns = ", ".join(['r."time"', *safe.values()])
            query = (
                f'select u.code as "user", i.code as "item", {columns} from {table} r '
                'join users u on r."user" = u.id join items i on r."item" = i.id '
                f"where {' and '.join(kept)} "
                f'order by u.code, r."time", r.file_row_number'
            )
            _write(database, query, ordered)
        raw.unlink()
        own = {"user": pl.Int32(), "item": pl.Int32(), "time": types["time"]}
        found = _columns(ordered, own | {safe[name]: types[name] for name in others}, self.storage)
        found = {name: found[safe.get(name, name)] for name in ("user", "item", "time", *others)}
        ordered.unlink()
        lost = [before - after for before, after in zip(sizes, sizes[1:], strict=False)]
        dropped = dict(zip(thresholds, lost, strict=True))
        return Coded(ids["user"], ids["item"], sizes[0], found, dropped)

    def _ids(self, database: Any, table: str, side: str, dtype: pl.DataType) -> pl.Series:
        """Distinct ids, sorted; also as the table ``users`` or ``items`` with their places."""
        database.execute(
            f"create table {side}s as select id, (row_number() over (order by id) - 1)::integer "
            f'as code from (select distinct "{side}" as id from {table})'
        )
        path = self.folder / f"{side}s.parquet"
        _write(database, f"select id from {side}s order by code", path)
        found: pl.Series = pl.read_parquet(path, glob=False)["id"].cast(dtype).alias(side)
        path.unlink()
        return found


def _size(database: Any, rows: str) -> int:
    num: int = database.execute(f"select count(*) from {rows}").fetchone()[0]
    return num


def _write(database: Any, query: str, path: Path) -> None:
    database.execute(f"copy ({query}) to {_text(path)} (row_group_size {ROW_GROUP})")


def _text(path: Path) -> str:
    """A path as text in SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def _pattern(path: Path) -> str:
    """The same of a file to read, where ``*``, ``?`` and brackets are wildcards."""
    return re.sub(r"([\[\]*?])", r"[\1]", _text(path))


def _columns(path: Path, types: dict[str, pl.DataType], storage: Storage) -> dict[str, Column]:
    """Numbers as arrays; others, and those with gaps, as Polars reads them."""
    table = pl.scan_parquet(path, glob=False)
    gaps = table.null_count().collect(engine="streaming").row(0, named=True)
    num = table.select(pl.len()).collect().item()
    arrays: dict[str, np.ndarray] = {}
    others: dict[str, Column] = {}
    for name, dtype in types.items():
        if dtype.is_numeric() and not gaps[name]:
            arrays[name] = storage.new((num,), pl.Series(dtype=dtype).to_numpy().dtype)
        else:
            others[name] = table.select(pl.col(name).cast(dtype)).collect()[name]
    for rows in blocks(num):
        part = table.slice(rows.start, rows.stop - rows.start).select(list(arrays)).collect()
        for name, array in arrays.items():
            array[rows] = part[name].to_numpy()
    return arrays | others
