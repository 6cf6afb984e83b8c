"""Text with fields: its separator, its header, and what stands before the header."""

import re
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
    lines = _first_lines(path)
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0], re.IGNORECASE) if lines else None
    skipped = 1 if stated else 0
    while skipped < len(lines) and (
        lines[skipped].startswith(COMMENTS) or not lines[skipped].strip()
    ):
        skipped += 1
    header = lines[skipped] if skipped < len(lines) else ""
    separator = text_format.separator or (stated[1] if stated else _separator_of(header, usual))
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


def _first_lines(path: Path) -> list[str]:
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


def _separator_of(line: str, usual: str) -> str:
    """The usual one if it is there, else the most frequent of the others."""
    best = max((",", "\t", ";", "|"), key=line.count)
    return usual if usual in line or best not in line else best
