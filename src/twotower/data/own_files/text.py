"""Text with fields: its separator, its header, and what stands before the header."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.readers.parse import FIELD

MAX_PREAMBLE = 100  # lines in which the header is looked for
COMMENTS = ("#", "%", "//")


class TextFormat(NamedTuple):
    """How text is written.

    Attributes:
        separator: between fields; None takes the one of the header line.
        header: names of the columns of files without a header line; None takes the first line.
        quote: around fields that hold separators; None: quotation marks are ordinary characters.
    """

    separator: str | None
    header: list[str] | None
    quote: str | None


def first_lines(path: Path) -> list[str]:
    """The first lines of a file, plain or compressed, as they are."""
    lines = pl.scan_csv(
        path,
        has_header=False,
        separator=FIELD.decode(),
        quote_char=None,
        new_columns=["line"],
        infer_schema=False,
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
        glob=False,
    )
    first = lines.head(MAX_PREAMBLE).collect()["line"].fill_null("")
    return [line.lstrip("\ufeff").rstrip("\r") for line in first]


def separator_of(line: str, usual: str) -> str:
    """The usual one if it is there, else the most frequent of the others."""
    best = max((",", "\t", ";", "|"), key=line.count)
    return usual if usual in line or best not in line else best
