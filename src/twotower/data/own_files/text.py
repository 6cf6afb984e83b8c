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
        missing: fields that stand for nothing, besides the empty one.
    """

    separator: str | None
    header: list[str] | None
    quote: str | None
    missing: list[str]


class Layout(NamedTuple):
    """How one file is laid out.

    Attributes:
        num_before: lines before the header, or before the rows where there is no header.
        separator: between its fields.
        line_end: the last character of its line ends.
    """

    num_before: int
    separator: str
    line_end: str


def find_layout(path: Path, text_format: TextFormat, usual: str) -> Layout:
    """Look at the first lines of a file.

    A first line ``sep=;`` is Excel's and names the separator. Lines that begin as comments are left out, but for
    ``#user_id,item_id``, a header line: it has as many fields as the line below, and that one holds a number.

    Args:
        path: the file.
        text_format: what is known of it.
        usual: the separator that the name of the file suggests.
    """
    line_end = line_end_of(path)
    lines = _first_lines(path, line_end)
    lines = [line.lstrip("\ufeff").rstrip("\r") for line in lines]
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0], re.IGNORECASE) if lines else None
    first = 1 if stated else 0
    separator = text_format.separator or (stated[1] if stated else None)
    rest = first
    while rest < len(lines) and (lines[rest].startswith(COMMENTS) or not lines[rest].strip()):
        rest += 1
    below = lines[rest] if rest < len(lines) else ""
    if rest > first and text_format.header is None and lines[rest - 1].startswith("#"):
        assumed = separator or _separator_of(below, usual)
        if _is_header(lines[rest - 1].split(assumed), below.split(assumed)):
            rest -= 1
    if all(not line.strip() for line in lines[first:rest]):
        rest = first  # blank lines are passed over anyway
    header = lines[rest] if rest < len(lines) else ""
    return Layout(rest, separator or _separator_of(header, usual), line_end)


def scan(path: Path, layout: Layout, text_format: TextFormat) -> pl.LazyFrame:
    """Every field as the text that it is, so that no id loses a leading zero."""
    frame = pl.scan_csv(
        path,
        separator=layout.separator,
        eol_char=layout.line_end,
        skip_lines=layout.num_before,
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
    if stripped != names:
        frame = frame.rename(dict(zip(names, stripped, strict=True)))
    return frame


def line_end_of(path: Path) -> str:
    """The last character of the line ends: a carriage return in files of an old Mac, whose first line would be all of them."""
    lines = _first_lines(path, "\n", 1)
    return "\r" if lines and "\r" in lines[0].rstrip("\r") else "\n"


def lines_of(path: Path, line_end: str) -> pl.LazyFrame:
    """A text file with one column, ``line``; blank lines are null."""
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


def _first_lines(path: Path, line_end: str, num: int = MAX_PREAMBLE) -> list[str]:
    return lines_of(path, line_end).head(num).collect()["line"].fill_null("").to_list()


def _separator_of(line: str, usual: str) -> str:
    """The usual one if it is there, else the most frequent of the others."""
    best = max((",", "\t", ";", "|"), key=line.count)
    return usual if usual in line or best not in line else best


def _is_header(fields: list[str], below: list[str]) -> bool:
    has_number = any(re.fullmatch(r"""\s*["']?-?\d[\d.,]*["']?\s*""", field) for field in below)
    return len(fields) == len(below) > 1 and has_number
