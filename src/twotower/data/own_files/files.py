"""Open the files of a user's table lazily, whatever their format: one file, or several shards."""

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.own_files.errors import broken, refuse_wrong_content
from twotower.data.own_files.paths import COMPRESSED, KINDS, SEPARATORS, ending_of
from twotower.data.own_files.text import COMMENTS, TextFormat, first_lines, separator_of
from twotower.data.own_files.values import plain
from twotower.data.readers.parse import open_csv
from twotower.errors import UserError
from twotower.wording import clip

HEAD_ROWS = 10_000  # what types, units and separators are judged by
JSON_ROWS = 100_000  # of JSON lines, in which fields are looked for
FILE, LINE = "_file", "_line"  # columns that locate a row; dropped where they are not asked for
# RecursionError: of Polars, at types that are nested hundreds of levels deep
FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, RecursionError)
# else Polars panics at a time zone such as +05:30, as pandas writes them
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")


class Shard(NamedTuple):
    """One file of a table.

    Attributes:
        path: of the file.
        kind: text, JSON lines, Parquet or Arrow.
        frame: its rows, with plain columns and ``LINE``.
        columns: names of its columns, without ``LINE``.
        separator: between the fields of text.
    """

    path: Path
    kind: str
    frame: pl.LazyFrame
    columns: list[str]
    separator: str


class Source:
    """One table.

    Args:
        setting: where its path is set, ``data.reader.items``.
        shards: its files, with the same columns.

    Attributes:
        frame: its rows, with ``FILE`` and ``LINE``.
        schema: of ``frame``, without these two.
    """

    def __init__(self, setting: str, shards: list[Shard]) -> None:
        self.setting = setting
        self.shards = shards
        self.path = shards[0].path
        more = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
        self.name = f"{self.path.name}{more}"
        frames = [
            shard.frame.with_columns(pl.lit(place).alias(FILE))
            for place, shard in enumerate(shards)
        ]
        self.frame = pl.concat(frames, how="diagonal_relaxed")
        try:
            schema = self.frame.collect_schema()
        except FAILURES as error:
            raise UserError(_difference(shards, frames, error)) from error
        self.schema = {name: schema[name] for name in schema if name not in (FILE, LINE)}
        self._head: pl.DataFrame | None = None

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Read ``rows``, which are made from ``frame``.

        Raises:
            UserError: naming the file, and the line where there is one, that cannot be read.
        """
        try:
            return rows.collect(engine="streaming")
        except FAILURES as error:
            for shard in self.shards:
                _check(shard)
            raise UserError(f"{self.path} cannot be read: {clip(str(error))}") from error

    def write(self, rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
        """Read ``rows``, which are made from ``frame``, into a Parquet file, a part at a time.

        Raises:
            UserError: for what cannot be read, as in :meth:`collect`, and if the disk is full.
        """
        try:
            rows.sink_parquet(path)
        except FAILURES as error:
            for shard in self.shards:
                _check(shard)
            raise UserError(f"{path.parent} cannot be written: {clip(str(error))}") from error
        return pl.scan_parquet(path, glob=False)

    def head(self) -> pl.DataFrame:
        """The first rows.

        Raises:
            UserError: if there are none.
        """
        if self._head is None:
            self._head = self.collect(self.frame.select(*self.schema).head(HEAD_ROWS))
        if self._head.is_empty():
            raise UserError(
                f"{self.path} has a header and no rows: give a table with rows in {self.setting}"
            )
        return self._head

    def known(self, column: str) -> pl.Series:
        """The first values of a column that are there."""
        values = self.head()[column].drop_nulls()
        if values.is_empty():
            values = self.collect(self.frame.select(column).drop_nulls().head(HEAD_ROWS))[column]
        return values

    def place(self, rows: pl.LazyFrame) -> str:
        """File and line of the first of some rows, which keep ``FILE`` and ``LINE``."""
        file, line = self.collect(rows.select(FILE, LINE).head(1)).row(0)
        shard = self.shards[file]
        return f"{shard.path} {'line' if shard.kind in ('text', 'JSON lines') else 'row'} {line:,}"

    def refuse(self, column: str, bad: pl.Expr, what: str) -> None:
        """Refuse the values of a column that ``bad`` marks.

        Raises:
            UserError: naming the first one, and that it is ``what``; not if there are none.
        """
        rows = self.frame.filter(bad)
        num, value = self.collect(rows.select(pl.len(), pl.col(column).first())).row(0)
        if num:
            shown = clip(str(value), 40)
            raise UserError(f"{self.place(rows)}: {column} {shown!r} ({num:,} in all) is {what}")


def open_source(
    setting: str,
    paths: list[Path],
    text_format: TextFormat,
    missing: list[str],
    stack: ExitStack,
    partitions: Callable[[Path], dict[str, str | None]] = lambda path: {},
) -> Source:
    """Open files without reading them.

    Args:
        setting: where their path is set.
        paths: the files.
        text_format: how text is read.
        missing: words that stand for a missing value.
        stack: removes what was unpacked when it is closed.
        partitions: columns that the folders of a file hold, see
            :func:`~twotower.data.own_files.paths.partitions`; the file's own take precedence.

    Raises:
        UserError: for files that cannot be opened, and shards with different columns. Those of
            JSON lines may differ, because programs leave fields without a value out.
    """
    shards = [_open(path, text_format, missing, stack, partitions(path)) for path in paths]
    first = shards[0]
    for shard in shards[1:]:
        different = set(first.columns) ^ set(shard.columns)
        if different and not first.kind == shard.kind == "JSON lines":
            listed = ", ".join(sorted(clip(name, 40) for name in different)[:5])
            raise UserError(
                f"{first.path} and {shard.path} have different columns (not in both: {listed}): "
                f"give {setting} files of one kind"
            )
    return Source(setting, shards)


def _difference(shards: list[Shard], frames: list[pl.LazyFrame], error: BaseException) -> str:
    """Which two files have columns that cannot be put below each other, and why."""
    for shard, frame in zip(shards[1:], frames[1:], strict=True):
        try:
            pl.concat([frames[0], frame], how="diagonal_relaxed").collect_schema()
        except FAILURES as own:
            return f"{shards[0].path} and {shard.path} have different columns: {clip(str(own))}"
    return f"{shards[0].path} and its other files have different columns: {clip(str(error))}"


def _open(
    path: Path,
    text_format: TextFormat,
    missing: list[str],
    stack: ExitStack,
    partitions: dict[str, str | None],
) -> Shard:
    ending = ending_of(path)
    if ending not in KINDS:
        raise UserError(
            f"{path} has no ending that says what it is: name it one of {', '.join(KINDS)}, "
            f"with {', '.join(COMPRESSED)} if compressed"
        )
    kind = KINDS[ending]
    separator = text_format.separator or SEPARATORS.get(ending, ",")
    first_line = 1
    try:
        if kind in ("text", "JSON lines"):
            refuse_wrong_content(path)
        unpacked = stack.enter_context(open_csv(path))
        if kind == "text":
            frame, first_line, separator = scan_text(unpacked, text_format, separator)
        elif kind == "JSON lines":
            frame = _scan_json(unpacked)
        else:
            frame = (pl.scan_parquet if kind == "Parquet" else pl.scan_ipc)(unpacked, glob=False)
        frame = frame.with_row_index(LINE, first_line)
        own = frame.collect_schema()
        frame = frame.with_columns(
            pl.lit(value, pl.String).alias(name)
            for name, value in partitions.items()
            if name not in own
        )
        schema = frame.collect_schema()
        columns = [name for name in schema if name != LINE]
        frame = frame.with_columns(plain(pl.col(name), schema[name], missing) for name in columns)
    except FAILURES as error:
        raise broken(path, kind, error, separator, None) from error
    if kind == "text":  # blank lines
        frame = frame.filter(~pl.all_horizontal(pl.col(columns).is_null()))
    return Shard(path, kind, frame, columns, separator)


def scan_text(path: Path, text_format: TextFormat, usual: str) -> tuple[pl.LazyFrame, int, str]:
    """Scan every field as text, so that no id loses a leading zero.

    A first line ``sep=;`` is Excel's and names the separator. Blank lines and comments before the
    header are left out.

    Args:
        path: the file, plain or compressed.
        text_format: as the user states it.
        usual: the separator that the name of the file suggests.

    Returns:
        The rows, the line of the first of them, and the separator.
    """
    lines = first_lines(path)
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0], re.IGNORECASE) if lines else None
    skipped = 1 if stated else 0
    while skipped < len(lines) and (
        lines[skipped].startswith(COMMENTS) or not lines[skipped].strip()
    ):
        skipped += 1
    header = lines[skipped] if skipped < len(lines) else ""
    separator = text_format.separator or (stated[1] if stated else separator_of(header, usual))
    frame = pl.scan_csv(
        path,
        separator=separator,
        skip_lines=skipped,
        has_header=text_format.header is None,
        new_columns=text_format.header,
        quote_char=text_format.quote,
        infer_schema=False,
        glob=False,
    )
    first_line = skipped + (1 if text_format.header else 2)
    return frame.rename(str.strip), first_line, separator


def _scan_json(path: Path) -> pl.LazyFrame:
    """Read single values as text, like those of CSV: a later line may hold another type."""
    schema = pl.scan_ndjson(path, infer_schema_length=JSON_ROWS).collect_schema()
    types = {name: dtype if dtype.is_nested() else pl.String() for name, dtype in schema.items()}
    return pl.scan_ndjson(path, schema=types)


def _check(shard: Shard) -> None:
    """Raise the error of one file, if it cannot be read."""
    try:
        shard.frame.select(pl.all().null_count()).collect(engine="streaming")
    except FAILURES as error:
        width = len(shard.columns)
        raise broken(shard.path, shard.kind, error, shard.separator, width) from error
