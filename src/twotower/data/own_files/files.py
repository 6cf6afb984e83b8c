"""The files of a user's own tables, opened lazily whatever their format: one table, in one file or in several shards."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from twotower.data.download.bombs import too_many_rows
from twotower.data.own_files.errors import broken, clip, refuse_wrong_content
from twotower.data.own_files.json_text import scan_json
from twotower.data.own_files.text import UNSEEN, TextFormat, scan_text
from twotower.data.readers.parse import open_csv
from twotower.errors import UserError

COMPRESSED = (".gz", ".zst", ".xz")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|", ".txt": "\t", ".dat": ","}
TYPED = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".arrow": "Arrow",
    ".feather": "Arrow",
    ".ipc": "Arrow",
}
LINES = (".jsonl", ".ndjson", ".json")
HEAD_ROWS = 10_000  # what types, units and separators are judged by
MIN_HEAD_ROWS = 100  # of each of many shards
FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
# else Polars panics at a time zone such as +05:30, as pandas writes them
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")


class Shard(NamedTuple):
    """One file of a table.

    Attributes:
        path: of the file.
        kind: text, JSON lines, Parquet or Arrow.
        frame: its rows.
        schema: of ``frame``.
        first_line: the line of its first row, 0 where it has no lines.
        separator: between the fields of text.
    """

    path: Path
    kind: str
    frame: pl.LazyFrame
    schema: dict[str, pl.DataType]
    first_line: int
    separator: str

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Read ``rows`` of this file; a failure is told with the reason that the file gives."""
        try:
            return rows.collect(engine="streaming")
        except FAILURES as error:
            raise broken(self.path, self.kind, error, self.separator, len(self.schema)) from error

    def with_columns(self, columns: list[pl.Expr]) -> "Shard":
        """The same file with other columns."""
        frame = self.frame.with_columns(columns)
        return self._replace(frame=frame, schema=dict(frame.collect_schema()))


class Source:
    """One table, whose shards have the same columns.

    Args:
        setting: where its path is set, ``data.reader.items``.
        shards: its files.
    """

    def __init__(self, setting: str, shards: list[Shard]) -> None:
        self.setting = setting
        self.shards = shards
        self.schema = shards[0].schema
        self.path = shards[0].path
        self.name = (
            self.path.name if len(shards) == 1 else f"{self.path.name} and {len(shards) - 1} more"
        )
        self.is_text = any(shard.kind == "text" for shard in shards)
        self.is_json = any(shard.kind == "JSON lines" for shard in shards)
        self._heads: list[pl.DataFrame] | None = None

    def collect(self, rows: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """``rows`` of every shard, one after another, without the blank lines of text.

        Raises:
            UserError: naming the file, and the line where there is one, that cannot be read.
        """
        try:
            parts = [rows(self._not_blank(shard.frame)) for shard in self.shards]
            return pl.concat(parts).collect(engine="streaming")
        except FAILURES as error:
            for shard in self.shards:
                shard.collect(rows(shard.frame))
            raise UserError(
                f"{self.path}: its shards do not fit together: {clip(str(error))}"
            ) from error

    def heads(self) -> list[pl.DataFrame]:
        """The first rows of each shard that has any, read once: no shard alone decides how all are read.

        Raises:
            UserError: if there are no rows at all.
        """
        if self._heads is None:
            num_rows = max(HEAD_ROWS // len(self.shards), MIN_HEAD_ROWS)
            heads = [
                shard.collect(shard.frame.select(pl.col(*self.schema)).head(num_rows))
                for shard in self.shards
            ]
            self._heads = [head for head in heads if len(head)]
        if not self._heads:
            raise UserError(
                f"{self.path} has a header and no rows: give a table with rows in {self.setting}"
            )
        return self._heads

    def head(self) -> pl.DataFrame:
        """The heads of the shards one after another, once their columns have the same types."""
        return pl.concat(self.heads())

    def known(self, column: str) -> pl.Series:
        """The first values of a column that are there: what it is judged by."""
        values = self.head()[column].drop_nulls()
        if len(values):
            return values
        return self.collect(lambda rows: rows.select(column).drop_nulls().head(HEAD_ROWS))[column]

    def locate(
        self, row: int, column: str | None = None, kept: pl.Expr | None = None
    ) -> tuple[str, Any]:
        """File and line of a row, and what stands in ``column`` there.

        Args:
            row: counted without blank lines, among the rows that ``kept`` lets through.
            column: a name, or None.
            kept: a filter, or None.
        """
        for shard in self.shards:
            rows = self._not_blank(shard.frame.with_row_index(UNSEEN))
            numbers = (rows if kept is None else rows.filter(kept)).select(UNSEEN).collect()[UNSEEN]
            if row < len(numbers):
                number = numbers[row]
                place = (
                    f"line {number + shard.first_line:,}"
                    if shard.first_line
                    else f"row {number + 1:,}"
                )
                value = (
                    shard.frame.select(column).slice(number, 1).collect().item() if column else None
                )
                return f"{shard.path} {place}", value
            row -= len(numbers)
        return str(self.path), None

    def refuse(self, column: str, bad: pl.Series, what: str) -> None:
        """Name the first value of a column that ``bad`` marks.

        Raises:
            UserError: if any row is marked, saying that the value is ``what``.
        """
        if bad.any():
            where, value = self.locate(bad.arg_max() or 0, column)
            raise UserError(
                f"{where}: {column} {clip(str(value), 40)!r} ({bad.sum():,} in all) is {what}"
            )

    def refuse_gap(
        self, what: str, values: pl.Series, cure: str, kept: pl.Expr | None = None
    ) -> None:
        """Name the first row without a value that every row must have.

        Raises:
            UserError: if ``values``, those of the rows that ``kept`` lets through, have gaps.
        """
        if num := values.null_count():
            where, _ = self.locate(values.is_null().arg_max() or 0, kept=kept)
            raise UserError(f"{where} has no {what} ({num:,} in all): {cure}")

    def _not_blank(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return (
            rows.filter(~pl.all_horizontal(pl.col(*self.schema).is_null()))
            if self.is_text
            else rows
        )


def open_source(
    setting: str, paths: list[Path], text_format: TextFormat, stack: ExitStack, sample: int | None
) -> Source:
    """Open files without reading them.

    Args:
        setting: where their path is set.
        paths: the files.
        text_format: how text is read.
        stack: removes what was unpacked when it is closed.
        sample: how many lines tell the fields of JSON lines; None for all of them.

    Raises:
        UserError: for files that cannot be opened, and shards with different columns. Those of
            JSON lines may differ, because programs leave fields without a value out.
    """
    shards = [_open(path, text_format, stack, sample) for path in paths]
    if all(shard.kind == "JSON lines" for shard in shards):
        names = dict.fromkeys(name for shard in shards for name in shard.schema)
        absent = [
            [pl.lit(None).alias(name) for name in names if name not in shard.schema]
            for shard in shards
        ]
        shards = [
            shard.with_columns(columns) if columns else shard
            for shard, columns in zip(shards, absent, strict=True)
        ]
    first = shards[0]
    for shard in shards[1:]:
        if different := set(first.schema) ^ set(shard.schema):
            listed = ", ".join(sorted(clip(name, 40) for name in different)[:5])
            raise UserError(
                f"{first.path} and {shard.path} have different columns (not in both: {listed}): give {setting} files of one kind"
            )
    return Source(setting, shards)


def _open(path: Path, text_format: TextFormat, stack: ExitStack, sample: int | None) -> Shard:
    kind = _kind(path)
    separator = text_format.separator or SEPARATORS.get(_suffix(path), ",")
    first_line = 0 if kind in TYPED.values() else 1
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        refuse_wrong_content(path, kind, start)
        unpacked = stack.enter_context(open_csv(path))
        if kind == "text":
            frame, first_line, separator = scan_text(unpacked, text_format, separator)
        elif kind == "JSON lines":
            frame = scan_json(unpacked, path, stack, sample)
        else:
            frame = (pl.scan_parquet if kind == "Parquet" else pl.scan_ipc)(unpacked, glob=False)
            num_rows = int(frame.select(pl.len()).collect().item())  # its metadata tell
            if fault := too_many_rows(path, num_rows):
                raise UserError(f"{path} {fault}")
        schema = dict(frame.collect_schema())
    except FAILURES as error:
        raise broken(path, kind, error, separator, None) from error
    return Shard(path, kind, frame, schema, first_line, separator)


def _kind(path: Path) -> str:
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
