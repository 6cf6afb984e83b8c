"""Delimited text files without a header, with the line named when one is wrong."""

from pathlib import Path

import polars as pl

from twotower.types import UserError

FIELD = b"\x1f"  # the ASCII unit separator: Polars splits at single bytes alone, and MovieLens separates by "::"


def read_delimited(path: Path, separator: str, schema: dict[str, type[pl.DataType]], encoding: str = "utf-8") -> pl.DataFrame:
    """Read ``path`` into columns of the given names and types.

    Raises:
        UserError: if the file is missing or empty, or a line has the wrong number of fields or a value of the wrong type.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    if not content.strip():
        raise UserError(f"{path} is empty")
    content = content.rstrip()
    if encoding != "utf-8":
        content = content.decode(encoding).encode()
    try:
        frame = pl.read_csv(
            content.replace(separator.encode(), FIELD),
            separator=FIELD.decode(),
            has_header=False,
            new_columns=list(schema),
            schema_overrides=dict(schema),
            quote_char=None,
        )
        required = [name for name, kind in schema.items() if kind.is_numeric() or name == frame.columns[-1]]
        complete = frame.width == len(schema) and not any(frame.select(required).null_count().row(0))
    except pl.exceptions.PolarsError:
        complete = False
    if not complete:
        raise UserError(f"{path} {_first_bad_line(content, separator, schema)}")
    return frame


def _first_bad_line(content: bytes, separator: str, schema: dict[str, type[pl.DataType]]) -> str:
    expected = separator.join(schema)
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        fields = line.split(separator)
        if len(fields) != len(schema):
            return f"line {number} has {len(fields)} fields, expected {len(schema)} ({expected!r}): {line[:80]!r}"
        for field, (name, kind) in zip(fields, schema.items(), strict=True):
            if kind.is_numeric() and not field.lstrip("-").replace(".", "", 1).isdigit():
                return f"line {number}: {name} is no number: {line[:80]!r}"
    return f"cannot be read as {expected!r}"
