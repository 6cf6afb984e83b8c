"""Say why a user's file cannot be read, in one line that names the place and the cure."""

import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import polars as pl

from twotower.errors import UserError
from twotower.wording import clip

FOREIGN = {
    b"PAR1": "a Parquet file: name it .parquet",
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the sheet as CSV",
    b"\xff\xfe": "UTF-16 text: convert it, iconv -f utf-16 -t utf-8 OLD > NEW",
    b"\xfe\xff": "UTF-16 text: convert it, iconv -f utf-16 -t utf-8 OLD > NEW",
}
PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")  # gzip, Zstandard and xz
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
NOT_CLOSED = "has a quotation mark that is not closed: mend it, or set data.reader.quote=null"


def refuse_wrong_content(path: Path) -> None:
    """Refuse a file of text or JSON lines that begins as another kind of file.

    Raises:
        UserError: saying what the file seems to be.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    for magic, meaning in FOREIGN.items():
        if start.startswith(magic):
            raise UserError(f"{path} is {meaning}")
    if b"\0" in start and not start.startswith(PACKED):
        raise UserError(f"{path} is not text (it holds zero bytes): export it as CSV or Parquet")


def broken(
    path: Path, kind: str, error: BaseException, separator: str, width: int | None
) -> UserError:
    """The error for a file that cannot be read.

    Args:
        path: the file.
        kind: its format.
        error: of Polars, the operating system or a decompressor.
        separator: between the fields of text.
        width: number of columns; None where even the header cannot be read.
    """
    if isinstance(error, pl.exceptions.NoDataError):
        return UserError(f"{path} is empty: write it again")
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read: give yourself the right, chmod u+r {path}")
    reason = None
    try:
        if isinstance(error, OSError):
            raise error
        if kind == "text" and path.suffix != ".zst":
            with OPENERS.get(path.suffix, open)(path, "rb") as file:
                reason = _bad_text(file, separator, width)
        elif kind == "JSON lines" and path.suffix != ".zst":
            with OPENERS.get(path.suffix, open)(path, "rb") as file:
                reason = _bad_json(file)
    except (OSError, EOFError, lzma.LZMAError) as damage:
        reason = f"is truncated or damaged ({clip(str(damage))}): copy or write it again"
    return UserError(
        f"{path} {reason or f'cannot be read as {kind} ({clip(str(error))}): write it again'}"
    )


def _bad_text(file: IO[bytes], separator: str, width: int | None) -> str | None:
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(file, start=1):  # noqa: B007 - read by the handlers below
            yield line.decode()

    try:
        for row in csv.reader(lines(), delimiter=separator):
            if width is not None and len(row) > width:
                return (
                    f"line {number:,} has {len(row)} fields, its header {width}: quote fields that "
                    f"hold the separator {separator!r}, or set data.reader.separator"
                )
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        cure = "convert it, iconv -f latin1 -t utf-8 OLD > NEW"
        return f"line {number:,} is not UTF-8 (byte 0x{byte:02x}): {cure}"
    except csv.Error:  # a field longer than Python's limit
        return NOT_CLOSED
    return None if width is None else NOT_CLOSED


def _bad_json(file: IO[bytes]) -> str | None:
    for number, line in enumerate(file, start=1):
        if line.lstrip().startswith(b"["):
            return "is one list: write one object per line, jq -c '.[]' OLD > NEW.jsonl"
        try:
            value = json.loads(line, parse_constant=_no_constant) if line.strip() else {}
        except ValueError as error:
            shown = clip(line.decode(errors="replace"), 40)
            return f"line {number:,} is not JSON ({error}): {shown!r}; mend or remove it"
        except RecursionError:
            return f"line {number:,} is nested too deeply: mend or remove it"
        if not isinstance(value, dict):
            return f"line {number:,} is not a JSON object: mend or remove it"
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed, write null")
