"""Readers of JSON lines, plain or compressed. A wrong line is named."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from twotower.data.readers.parse import GZIP_MAGIC, open_csv
from twotower.errors import UserError


def read_json_lines(path: Path, types: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Read the fields ``types`` of every object, which must all be there; others are ignored.

    Raises:
        UserError: if the file is missing, empty or damaged, or a line is not a JSON object or
            lacks a field.
    """
    with open_csv(path) as plain:
        try:
            rows = pl.scan_ndjson(plain, schema=types).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise UserError(
                f"{path} {_bad_line(path, types) or f'cannot be read: {error}'}"
            ) from error
        if any(column.has_nulls() for column in rows):
            raise UserError(f"{path} {_bad_line(path, types) or 'has gaps'}")
    if rows.is_empty():
        raise UserError(f"{path} holds no rows")
    return rows


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank, of a plain or gzip file, one at a time.

    Raises:
        UserError: if the file is missing, empty or damaged.
    """
    with open_csv(path) as plain:
        try:
            with plain.open("rb") as raw:
                packed = raw.read(2) == GZIP_MAGIC
            with gzip.open(plain, "rb") if packed else plain.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if text := line.decode(errors="replace").strip():
                        yield number, text
        except zlib.error as error:  # open_csv knows the others
            raise UserError(f"{path} is damaged or cut short ({error}): fetch it again") from error


def parse_object(
    path: Path, number: int, text: str, parsers: tuple[Callable[[str], Any], ...] = (json.loads,)
) -> dict[str, Any]:
    """The object of a line, by the first parser that understands it.

    Raises:
        UserError: naming file and line, if none does.
    """
    for parse in parsers:
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return value
    raise UserError(f"{path} line {number} is not a JSON object: {text[:80]!r}")


def _bad_line(path: Path, types: dict[str, type[pl.DataType]]) -> str | None:
    """What is wrong with the first line that does not fit ``types``."""
    for number, text in lines(path):
        value = parse_object(path, number, text)
        for name, kind in types.items():
            field = value.get(name)
            fits = (
                isinstance(field, (int, float)) and not isinstance(field, bool)
                if kind.is_numeric()
                else isinstance(field, str)
            )
            if not fits or (kind.is_integer() and isinstance(field, float)):
                return (
                    f"line {number} has {json.dumps(field)[:40]} for {name}, expected "
                    f"{kind.__name__}: {text[:80]!r}"
                )
    return None
