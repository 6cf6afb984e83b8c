"""Text tables as programs export them: lines before the header, ends of lines, separators, padding."""

import re
from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.readers.parse import FIELD
from twotower.errors import UserError

UNSEEN = FIELD.decode()  # no text holds it
MAX_PREAMBLE = 100  # lines that are looked at
COMMENTS = ("#", "%", "//")


class TextFormat(NamedTuple):
    """What CSV and its relatives leave open.

    Attributes:
        separator: between fields; None takes the one of the header line.
        header: names of the columns of files without a header line; None reads them from the first line.
        quote: around fields that hold separators; None for files in which quotation marks are ordinary characters.
    """

    separator: str | None
    header: list[str] | None
    quote: str | None


class TextScan(NamedTuple):
    """A text file: its rows, the line of the first of them, and what separates its fields."""

    frame: pl.LazyFrame
    first_line: int
    separator: str


def scan_text(path: Path, text_format: TextFormat, usual: str) -> TextScan:
    """Scan every field as the text that it is, so that no id loses a leading zero.

    A first line ``sep=;`` is Excel's and names the separator. Lines before the header that begin
    as comments are left out.

    Args:
        path: the file.
        text_format: what is known of it.
        usual: the separator that the name of the file suggests.
    """
    line_end = line_end_of(path)
    lines = [
        line.lstrip("\ufeff").rstrip("\r") for line in _first_lines(path, line_end, MAX_PREAMBLE)
    ]
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0], re.IGNORECASE) if lines else None
    first = rest = 1 if stated else 0
    while rest < len(lines) and (lines[rest].startswith(COMMENTS) or not lines[rest].strip()):
        rest += 1
    header = lines[rest] if rest < len(lines) else ""
    separator = text_format.separator or (stated[1] if stated else _separator_of(header, usual))
    if not any(line.strip() for line in lines[first:rest]):
        rest = first  # blank lines are passed over anyway
    frame = pl.scan_csv(
        path,
        separator=separator,
        eol_char=line_end,
        skip_lines=rest,
        has_header=text_format.header is None,
        new_columns=text_format.header,
        quote_char=text_format.quote,
        infer_schema=False,
        glob=False,
    )
    names = frame.collect_schema().names()
    stripped = [name.strip() for name in names]
    for name in stripped:
        if name and stripped.count(name) > 1:
            raise UserError(f"{path} has several columns called {name}: rename all but one of them")
    first_line = rest + (1 if text_format.header else 2)
    return TextScan(frame.rename(dict(zip(names, stripped, strict=True))), first_line, separator)


def scan_lines(path: Path, line_end: str) -> pl.LazyFrame:
    """Each line of a file, plain or compressed, as one text in the column ``line``."""
    return pl.scan_csv(
        path,
        has_header=False,
        separator=UNSEEN,
        eol_char=line_end,
        quote_char=None,
        new_columns=["line"],
        infer_schema=False,
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
        glob=False,
    )


def line_end_of(path: Path) -> str:
    """The last character of the line ends: a carriage return in files of an old Mac, whose first line would be all of them."""
    lines = _first_lines(path, "\n", 1)
    return "\r" if lines and "\r" in lines[0].rstrip("\r") else "\n"


def _first_lines(path: Path, line_end: str, num: int) -> list[str]:
    return scan_lines(path, line_end).head(num).collect()["line"].fill_null("").to_list()


def _separator_of(line: str, usual: str) -> str:
    """The usual one if it is there, else the most frequent of the others."""
    best = max((",", "\t", ";", "|"), key=line.count)
    return usual if usual in line or best not in line else best
