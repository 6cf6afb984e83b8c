"""Readers of text files: delimited rows and lines of ids. A wrong line is named."""

import csv
import errno
import gzip
import io
import lzma
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from twotower.errors import UserError

XZ_MAGIC, GZIP_MAGIC = b"\xfd7zXZ\x00", b"\x1f\x8b"
BLOCK = 1 << 20
# bytes, or multiples of its size, to which a gzip file may unpack; tables take 3 to 20 times
MOST_UNPACKED, MOST_TIMES = 64 << 20, 100
# the ASCII unit separator: Polars splits only at single bytes, and MovieLens separates by "::"
FIELD = b"\x1f"
ID = re.compile(r"[0-9]{1,9}")  # fits in 32 bits


def read_delimited(
    path: Path, separator: str, schema: dict[str, type[pl.DataType]], encoding: str = "utf-8"
) -> pl.DataFrame:
    """Read ``path`` into columns of the given names and types.

    Raises:
        UserError: if the file is missing or empty, or a line has the wrong number of fields or a
            value of the wrong type.
    """
    content = _content(path)
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
        required = [
            name for name, kind in schema.items() if kind.is_numeric() or name == frame.columns[-1]
        ]
        complete = frame.width == len(schema) and not any(
            frame.select(required).null_count().row(0)
        )
    except pl.exceptions.PolarsError:
        complete = False
    if not complete:
        raise UserError(f"{path} {_first_bad_line(content, separator, schema)}")
    return frame


def read_sequences(path: Path, allow_empty: bool) -> pl.DataFrame:
    """Read lines ``user item item …`` of whole numbers.

    Args:
        path: numbers are separated by spaces; blank lines are skipped.
        allow_empty: accept users without items, who then do not appear.

    Returns:
        ``user``, ``item`` and ``time``, which is the item's place in its line.

    Raises:
        UserError: if the file is missing or empty, a field is not a whole number, or a user has two
            lines.
    """
    text = pl.Series(_content(path).decode(errors="replace").split("\n"))
    lines = pl.DataFrame({"field": text.str.extract_all(r"\S+")}).with_row_index("line", 1)
    lines = lines.filter(pl.col("field").list.len() > 0)
    ids = lines.explode("field").with_columns(id=pl.col("field").cast(pl.Int64, strict=False))
    place = pl.int_range(pl.len(), dtype=pl.Int32).over("line")
    ids = ids.with_columns(place=place, user=pl.col("id").first().over("line"))
    for line, field in ids.filter(pl.col("id").is_null()).select("line", "field").head(1).rows():
        raise UserError(f"{path} line {line}: {field[:80]!r} is not a whole number")
    users = ids.filter(pl.col("place") == 0)
    twice = users.filter(~pl.col("user").is_first_distinct()).select("line", "user")
    for line, user in twice.head(1).rows():
        raise UserError(f"{path} line {line}: user {user} has two lines: merge them into one")
    alone = lines.filter(pl.col("field").list.len() == 1)["line"].head(0 if allow_empty else 1)
    for line in alone:
        raise UserError(f"{path} line {line} names a user and no item")
    return ids.filter(pl.col("place") > 0).select("user", item="id", time=pl.col("place") - 1)


def read_quoted(path: Path, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Read a small comma-separated file with a header, whose fields may be quoted.

    Args:
        path: UTF-8 text.
        schema: names that the header holds, in order; ids below 10^9 or text.

    Raises:
        UserError: if the file is missing, empty or no UTF-8, or a line has other fields.
    """
    names = list(schema)
    numeric = [place for place, kind in enumerate(schema.values()) if kind.is_integer()]
    rows: list[list[str]] = []
    try:
        text = _content(path).decode("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline="")):
            if rows:
                fits = len(row) == len(names) and all(ID.fullmatch(row[at]) for at in numeric)
            else:
                fits = row == names
            if not fits:
                raise UserError(
                    f"{path} line {len(rows) + 1} does not read {','.join(names)!r}: "
                    f"{','.join(row)[:80]!r}"
                )
            rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} line {len(rows) + 1} is damaged or no UTF-8 ({error})") from None
    table = pl.DataFrame(rows[1:], schema=dict.fromkeys(schema, pl.String), orient="row")
    return table.cast(dict(schema))  # type: ignore[arg-type]


def _content(path: Path) -> bytes:
    content = _read(path).rstrip()
    if not content:
        raise UserError(f"{path} is empty")
    return content


def _read(path: Path, most: int = -1) -> bytes:
    """The first ``most`` bytes of a file, or all.

    Raises:
        UserError: if it is missing, or a folder.
    """
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, a file is expected") from None


def _first_bad_line(content: bytes, separator: str, schema: dict[str, type[pl.DataType]]) -> str:
    expected = separator.join(schema)
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        fields = line.split(separator)
        if len(fields) != len(schema):
            fault = f"has {len(fields)} fields, expected {len(schema)} ({expected!r})"
            return f"line {number} {fault}: {line[:80]!r}"
        for field, (name, kind) in zip(fields, schema.items(), strict=True):
            if kind.is_numeric() and not field.lstrip("-").replace(".", "", 1).isdigit():
                return f"line {number}: {name} is not a number: {line[:80]!r}"
    return f"cannot be read as {expected!r}"


@contextmanager
def open_csv(path: Path) -> Iterator[Path]:
    """Give a file for ``pl.scan_csv``, plain or compressed; scan and collect it inside the block.

    Polars unpacks gz and zst while it reads. An xz file is unpacked to a temporary file, on disk
    and not in memory, which is removed when the block ends. For a damaged stream, found here or by
    Polars inside the block, one line names ``path``.

    Raises:
        UserError: if the file is missing, empty, a folder or damaged, unpacks to far more than its
            own size, or there is no room to unpack it.
    """
    head = _read(path, len(XZ_MAGIC))
    if not head:
        raise UserError(f"{path} is empty")
    try:
        if head.startswith(GZIP_MAGIC):
            _refuse_bomb(path)
        if head != XZ_MAGIC:
            yield path
            return
        with tempfile.NamedTemporaryFile(prefix="twotower-", suffix=".csv") as plain:
            try:
                with lzma.open(path) as source:
                    shutil.copyfileobj(source, plain)
                plain.flush()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise UserError(
                    f"{tempfile.gettempdir()} has no room to unpack {path}: set TMPDIR to a larger "
                    "folder, or unpack it by hand"
                ) from error
            yield Path(plain.name)
    except (EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch it again") from error
    except OSError as error:
        # Polars reports a broken stream as an OSError without a number
        if error.errno is not None or "os error" in str(error):
            raise
        raise UserError(f"{path} is damaged or cut short ({error}): fetch it again") from error


def _refuse_bomb(path: Path) -> None:
    """Refuse a gzip file that unpacks to far more than its own size.

    Raises:
        UserError: naming the file; not for a damaged one, which the reader of it reports.
    """
    most = max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)
    unpacked = 0
    try:
        with gzip.open(path) as file:
            while unpacked <= most and (block := file.read(BLOCK)):
                unpacked += len(block)
    except (OSError, EOFError, zlib.error):
        return
    if unpacked > most:
        raise UserError(
            f"{path} unpacks to more than {most >> 20:,} MiB, far more than its size suggests: "
            "unpack it yourself if you trust it (gunzip), and give the unpacked file"
        )
