"""Reader of large tables of numbers, as a stream of the needed columns. A wrong line is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.readers.parse import FIELD, open_csv
from twotower.errors import UserError

Types = Mapping[str, pl.DataType | type[pl.DataType]]


def csv_files(folder: Path, *patterns: str) -> list[Path]:
    """Files of the first pattern that finds some, sorted: csv, also as gz, xz or zst.

    Raises:
        UserError: if a file is there twice.
    """
    for pattern in patterns:
        found = sorted(
            path
            for path in folder.glob(pattern)
            if path.name.split(".csv", 1)[-1] in ("", ".gz", ".xz", ".zst")
        )
        for path, before in zip(found[1:], found, strict=False):
            if path.name.split(".csv")[0] == before.name.split(".csv")[0]:
                raise UserError(f"{path} is there twice, as {before.name} too: remove one of them")
        if found:
            return found
    return []


def read_columns(
    path: Path, required: Types, optional: Types | None = None, header: bool = True
) -> pl.DataFrame:
    """Read columns of a comma-separated file without quotes, plain or compressed.

    Args:
        path: what :func:`~twotower.data.readers.parse.open_csv` opens.
        required: integer or ``pl.Enum`` columns that have a value in every row. Without a header
            they are all columns.
        optional: columns that may be absent or have gaps.
        header: whether the first line names the columns; those not asked for are never parsed.

    Raises:
        UserError: if the file is missing, empty or damaged, lacks a column, or has a line with
            other fields than it should.
    """
    with open_csv(path) as plain:
        layout = _layout(path, plain, required, optional or {}, header)
        try:
            rows = layout.scan(plain).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            fault = layout.bad_line(plain) or f"cannot be read: {str(error).splitlines()[0]}"
            raise UserError(f"{path} {fault}") from error
        if any(
            column.has_nulls() for column in rows
        ):  # gaps that may be, blank lines, or lines cut short
            rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
            if gap := layout.bad_line(plain):
                raise UserError(f"{path} {gap}")
    if rows.is_empty():
        raise UserError(f"{path} holds no rows")
    return rows


class _Layout(NamedTuple):
    """What a line looks like.

    Attributes:
        header: whether the first line names the columns.
        names: of all its fields.
        wanted: the columns to read.
        required: those of them that have a value in every row.
    """

    header: bool
    names: list[str]
    wanted: Types
    required: Types

    def scan(self, plain: Path) -> pl.LazyFrame:
        types = {name: self.wanted.get(name, pl.String) for name in self.names}
        return pl.scan_csv(plain, has_header=self.header, schema=types, quote_char=None).select(
            list(self.wanted)
        )

    def bad_line(self, plain: Path) -> str | None:
        """The first line that does not fit, and what is wrong with it."""
        text = pl.scan_csv(
            plain,
            has_header=False,
            separator=FIELD.decode(),
            quote_char=None,
            schema={"line": pl.String},
            encoding="utf8-lossy",
        )
        lines = text.with_row_index("number", 1).slice(int(self.header)).drop_nulls("line")
        field = pl.col("line").str.split(",")
        wrong = field.list.len() != len(self.names)
        for name in self.wanted:
            wrong |= ~self._fits(
                field.list.get(self.names.index(name), null_on_oob=True).fill_null(""), name
            )
        for number, line in lines.filter(wrong).head(1).collect(engine="streaming").iter_rows():
            return f"line {number} {self._fault(line)}: {line[:80]!r}"
        return None

    def _fits(self, field: pl.Expr, name: str) -> pl.Expr:
        kind = self.wanted[name]
        value = field.str.strip_chars()
        fits = value.cast(kind, strict=False).is_not_null()
        return fits if name in self.required else fits | (value == "")

    def _fault(self, line: str) -> str:
        fields = line.split(",")
        if len(fields) != len(self.names):
            return (
                f"has {len(fields)} fields, expected {len(self.names)} ({','.join(self.names)!r})"
            )
        at = {name: fields[self.names.index(name)] for name in self.wanted}
        name = next(name for name in at if not pl.select(self._fits(pl.lit(at[name]), name)).item())
        kind = self.wanted[name]
        return (
            f"has {at[name][:80]!r} for {name}, expected "
            f"{f'one of {_choices(kind)}' if isinstance(kind, pl.Enum) else kind}"
        )


def _choices(kind: pl.Enum) -> str:
    return ", ".join(kind.categories)


def _layout(path: Path, plain: Path, required: Types, optional: Types, header: bool) -> _Layout:
    if not header:
        return _Layout(False, list(required), required, required)
    try:
        names = (
            pl.scan_csv(plain, infer_schema=False, quote_char=None, encoding="utf8-lossy")
            .collect_schema()
            .names()
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"{path} has no line of column names: {str(error).splitlines()[0]}"
        ) from error
    for name in required:
        if name not in names:
            raise UserError(
                f"{path} has no column {name}; its columns are {', '.join(names)[:200]}"
            )
    return _Layout(
        True,
        names,
        {**required, **{name: kind for name, kind in optional.items() if name in names}},
        required,
    )
