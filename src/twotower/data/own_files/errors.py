"""Why a user's file cannot be read, in one line that names the line and the cure."""

import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import polars as pl

from twotower.errors import UserError

FOREIGN = {
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: name it .arrow",
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save the sheet as CSV",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xff\xfe": "UTF-16 text: convert it, iconv -f utf-16 -t utf-8 OLD > NEW",
    b"\xfe\xff": "UTF-16 text: convert it, iconv -f utf-16 -t utf-8 OLD > NEW",
    b"SQLite format 3": "a SQLite data base: export the table as CSV",
}
PACKED = (
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ",
)  # gzip, Zstandard and xz are unpacked, whatever the ending
FIELD_LIMIT = 1 << 20
SCANS: dict[str, Callable[..., pl.LazyFrame]] = {"Parquet": pl.scan_parquet, "Arrow": pl.scan_ipc}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def clip(text: str, width: int = 80) -> str:
    """At most ``width`` characters, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def refuse_wrong_content(path: Path, kind: str, start: bytes) -> None:
    """Refuse a file whose first bytes are not of its kind.

    Raises:
        UserError: saying what the file seems to be.
    """
    if not start:
        raise UserError(f"{path} is empty: write it again")
    if kind not in ("text", "JSON lines"):
        return
    for magic, meaning in FOREIGN.items():
        if start.startswith(magic):
            raise UserError(f"{path} is {meaning}")
    if b"\0" in start and not start.startswith(PACKED):
        raise UserError(
            f"{path} is no text, it holds zero bytes: export the table as CSV or Parquet"
        )


def broken(
    path: Path, kind: str, error: BaseException, separator: str, width: int | None
) -> UserError:
    """What a failure to read ``path`` means.

    Args:
        path: the file.
        kind: its format.
        error: of Polars, the operating system or a decompressor.
        separator: between the fields of text.
        width: number of columns; None where even the header is not known.
    """
    if isinstance(error, pl.exceptions.NoDataError):
        return UserError(f"{path} is empty: write it again")
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read: give yourself the right, chmod u+r {path}")
    if isinstance(error, (OSError, EOFError, lzma.LZMAError)):
        return UserError(
            f"{path} is truncated or damaged ({clip(str(error))}): copy or write it again"
        )
    try:
        if kind in SCANS:
            SCANS[kind](path, glob=False).select(pl.all().null_count()).collect(engine="streaming")
            reason = None
        else:
            with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
                reason = {"text": _bad_text, "JSON lines": _bad_json}[kind](file, separator, width)
    except (OSError, EOFError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        cure = "write it again"
        if kind in SCANS:
            cure += ", a column of an unusual type as text"
        return UserError(f"{path} cannot be read as {kind} ({clip(str(error))}): {cure}")
    if reason:
        return UserError(f"{path} {reason}")
    return UserError(
        f"{path} is sound {kind}, but a column holds what cannot be used as it is ({clip(str(error))}): give it another "
        "type, or leave it out"
    )


def _bad_text(file: IO[bytes], separator: str, width: int | None) -> str | None:
    usual = csv.field_size_limit(FIELD_LIMIT)  # of the whole process
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(file, start=1):  # noqa: B007 - read by the handlers below
            yield line.decode()

    try:
        for row in csv.reader(lines(), delimiter=separator):
            if width is not None and len(row) > width:
                nameless = (
                    "name the first column too (R: col.names=NA), " if len(row) == width + 1 else ""
                )
                return (
                    f"line {number:,} has {len(row)} fields, its header {width}: {nameless}quote fields that hold "
                    f"the separator {separator!r}, or set data.reader.separator"
                )
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return f"line {number:,} is not UTF-8 (byte 0x{byte:02x}): convert it, iconv -f latin1 -t utf-8 OLD > NEW"
    except csv.Error:
        return f"line {number:,} has no end: a quotation mark is not closed; mend it, or set data.reader.quote=null"
    finally:
        csv.field_size_limit(usual)
    return (
        None
        if width is None
        else "has a quotation mark that is not closed: mend it, or set data.reader.quote=null"
    )


def _bad_json(file: IO[bytes], separator: str, width: int | None) -> str | None:
    for number, line in enumerate(file, start=1):
        if line.lstrip().startswith(b"["):
            return "is one list: write one object per line, jq -c '.[]' OLD > NEW.jsonl"
        try:
            value = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as error:
            reason = (
                error.msg
                if isinstance(error, json.JSONDecodeError)
                else "not UTF-8, or nested too deep"
            )
            return f"line {number:,} is no JSON ({reason}): {clip(line.decode(errors='replace'), 40)!r}; mend or remove it"
        if not isinstance(value, dict):
            return f"line {number:,} is no JSON object: mend or remove it"
    return None
