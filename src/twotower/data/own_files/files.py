"""The files of a user's own tables, opened lazily whatever their format."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from twotower.data.download.bombs import too_many_rows
from twotower.data.own_files.errors import broken, clip, refuse_wrong_content
from twotower.data.own_files.json_text import readable
from twotower.data.own_files.shards import Shard, same_columns
from twotower.data.own_files.text import UNSEEN, TextFormat, find_layout, scan
from twotower.data.readers.parse import open_csv
from twotower.errors import UserError

COMPRESSED = (".gz", ".zst", ".xz")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|", ".txt": "\t", ".dat": ","}
TYPED = {".parquet": "Parquet", ".pq": "Parquet", ".arrow": "Arrow", ".feather": "Arrow", ".ipc": "Arrow"}
LINES = (".jsonl", ".ndjson", ".json")
HEAD_ROWS = 10_000  # what types, units and separators are judged by
MIN_HEAD_ROWS = 100  # of each of many shards
FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
# else Polars panics at a time zone such as +05:30, as pandas writes them
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")


class Source:
    """One table in one file or in several shards.

    Args:
        setting: where its path is set, ``data.reader.items``.
        shards: its files.
        text_format: how its text is read.
    """

    def __init__(self, setting: str, shards: list[Shard], text_format: TextFormat) -> None:
        self.setting = setting
        self.shards = shards
        self.text_format = text_format
        self.schema = shards[0].schema
        self.path = shards[0].path
        self.name = self.path.name if len(shards) == 1 else f"{self.path.name} and {len(shards) - 1} more"
        kinds = [_format(shard.path) for shard in shards]
        self.is_text = "text" in kinds
        self.is_json = "JSON lines" in kinds
        self._heads: list[pl.DataFrame] | None = None

    def collect(self, rows: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """``rows`` of every shard, one after another.

        Raises:
            UserError: naming the file, and the line where there is one, that cannot be read.
        """
        try:
            return pl.concat([rows(shard.frame) for shard in self.shards]).collect(engine="streaming")
        except FAILURES as error:
            for shard in self.shards:
                self._collect_one(shard, rows(shard.frame))
            clash = self._clash() or f"its shards do not fit together: {clip(str(error))}"
            raise UserError(f"{self.path}: {clash}") from error

    def heads(self) -> list[pl.DataFrame]:
        """The first rows of each shard that has any, read once: no shard alone decides how all are read.

        Raises:
            UserError: if there are no rows at all.
        """
        if self._heads is None:
            num_rows = max(HEAD_ROWS // len(self.shards), MIN_HEAD_ROWS)
            names = list(self.schema)
            heads = [self._collect_one(shard, shard.frame.select(pl.col(names)).head(num_rows)) for shard in self.shards]
            self._heads = [head for head in heads if len(head)]
        if not self._heads:
            raise UserError(f"{self.path} has a header and no rows: give a table with rows in {self.setting}")
        return self._heads

    def head(self) -> pl.DataFrame:
        """The heads of the shards one after another, once their columns have the same types.

        Raises:
            UserError: if there are no rows at all.
        """
        return pl.concat(self.heads())

    def locate(self, kept: Callable[[pl.LazyFrame], pl.LazyFrame], row: int, column: str | None = None) -> tuple[str, Any]:
        """File and line of row ``row`` of those that the filter ``kept`` lets through, and what stands in ``column`` there."""
        for shard in self.shards:
            numbers = kept(shard.frame.with_row_index(UNSEEN)).select(UNSEEN).collect()[UNSEEN]
            if row < len(numbers):
                number = numbers[row]
                place = f"line {number + shard.first_line:,}" if shard.first_line else f"row {number + 1:,}"
                value = shard.frame.select(column).slice(number, 1).collect().item() if column else None
                return f"{shard.path} {place}", value
            row -= len(numbers)
        return str(self.path), None

    def _clash(self) -> str | None:
        """The first column that has other types in other shards."""
        for name, dtype in self.schema.items():
            for shard in self.shards:
                if shard.schema[name] != dtype:
                    other = shard.schema[name]
                    return f"the column {clip(name, 40)} is {dtype} here and {other} in {shard.path}: write it alike in all"
        return None

    def _collect_one(self, shard: Shard, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect(engine="streaming")
        except FAILURES as error:
            raise broken(shard.path, _format(shard.path), error, shard.separator, len(shard.schema)) from error


def not_blank(source: Source, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Without the blank lines of a text file."""
    return rows.filter(~pl.all_horizontal(pl.col(*source.schema).is_null())) if source.is_text else rows


def open_source(setting: str, paths: list[Path], text_format: TextFormat, stack: ExitStack, json_as_text: bool) -> Source:
    """Open files without reading them.

    Args:
        setting: where their path is set.
        paths: the files.
        text_format: how text is read.
        stack: removes what was unpacked when it is closed.
        json_as_text: read the values of JSON lines as text, as those of CSV, because a later line may hold another type.

    Raises:
        UserError: for files that cannot be opened, and shards with different columns.
    """
    shards = [_open(path, text_format, stack, json_as_text) for path in paths]
    is_json = all(_format(path) == "JSON lines" for path in paths)
    return Source(setting, same_columns(shards, setting, absent_is_null=is_json), text_format)


def _open(path: Path, text_format: TextFormat, stack: ExitStack, json_as_text: bool) -> Shard:
    kind = _format(path)
    separator = text_format.separator or SEPARATORS.get(_suffix(path), ",")
    first_line = 1
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        refuse_wrong_content(path, kind, start)
        unpacked = stack.enter_context(open_csv(path))
        if kind == "text":
            layout = find_layout(unpacked, text_format, separator)
            separator = layout.separator
            first_line = layout.num_before + (1 if text_format.header else 2)
            frame = scan(unpacked, layout, text_format)
        elif kind == "JSON lines":
            unpacked = readable(unpacked, path, stack)
            frame = pl.scan_ndjson(unpacked, infer_schema_length=HEAD_ROWS if json_as_text else None)
            if json_as_text:
                inferred = frame.collect_schema()
                schema = {name: dtype if _is_deep(dtype) else pl.String() for name, dtype in inferred.items()}
                frame = pl.scan_ndjson(unpacked, schema=schema)
        else:
            frame = (pl.scan_parquet if kind == "Parquet" else pl.scan_ipc)(unpacked, glob=False)
            num_rows = int(frame.select(pl.len()).collect().item())  # its metadata tell
            if fault := too_many_rows(path, num_rows):
                raise UserError(f"{path} {fault}")
        schema = dict(frame.collect_schema())
    except FAILURES as error:
        raise broken(path, kind, error, separator, None) from error
    return Shard(path, frame, schema, 0 if kind in TYPED.values() else first_line, separator)


def _is_deep(dtype: pl.DataType) -> bool:
    """Lists of lists or objects, which cannot be read as text."""
    return isinstance(dtype, pl.List) and isinstance(dtype.inner, (pl.List, pl.Struct))


def _format(path: Path) -> str:
    suffix = _suffix(path)
    if suffix in SEPARATORS:
        return "text"
    if suffix in LINES:
        return "JSON lines"
    if suffix in TYPED:
        return TYPED[suffix]
    known = ", ".join([*SEPARATORS, *LINES[:2], *dict.fromkeys(TYPED)])
    raise UserError(
        f"{path} has no ending that says what it is: name it one of {known}, with {', '.join(COMPRESSED)} if compressed"
    )


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return ([suffix for suffix in suffixes if suffix not in COMPRESSED] or [""])[-1]
