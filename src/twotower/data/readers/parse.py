"""Text files of data sets: delimited rows and lines of ids, with the line named when one is wrong."""

import csv
import errno
import io
import lzma
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl

from twotower.data.download.bombs import limit, too_large
from twotower.errors import UserError

BLOCK = 1 << 20
XZ_MAGIC = b"\xfd7zXZ\x00"
FIELD = b"\x1f"  # the ASCII unit separator: Polars splits at single bytes alone, and MovieLens separates by "::"


def read_delimited(
    path: Path, separator: str, schema: dict[str, type[pl.DataType]], encoding: str = "utf-8"
) -> pl.DataFrame:
    """Read ``path`` into columns of the given names and types.

    Raises:
        UserError: if the file is missing or empty, or a line has the wrong number of fields or a value of the wrong type.
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
    """Read lines ``user item item …`` of whole numbers into ``user``, ``item`` and ``time``, an item's place in its line.

    Args:
        path: numbers are separated by spaces; blank lines are skipped.
        allow_empty: accept users without items, who then do not appear.

    Raises:
        UserError: if the file is missing or empty, a line holds no number where one is due, or a user has two lines.
    """
    text = pl.Series(_content(path).decode(errors="replace").split("\n"))
    lines = (
        pl.DataFrame({"field": text.str.extract_all(r"\S+")})
        .with_row_index("line", 1)
        .filter(pl.col("field").list.len() > 0)
    )
    ids = lines.explode("field").with_columns(id=pl.col("field").cast(pl.Int64, strict=False))
    place = pl.int_range(pl.len(), dtype=pl.Int32).over("line")
    ids = ids.with_columns(place=place, user=pl.col("id").first().over("line"))
    for line, field in (
        ids.filter(pl.col("id").is_null()).select("line", "field").head(1).iter_rows()
    ):
        raise UserError(f"{path} line {line}: {field[:80]!r} is no whole number")
    users = ids.filter(pl.col("place") == 0)
    for line, user in (
        users.filter(~pl.col("user").is_first_distinct()).select("line", "user").head(1).iter_rows()
    ):
        raise UserError(f"{path} line {line}: user {user} has a line already: join the two")
    for line in (
        [] if allow_empty else lines.filter(pl.col("field").list.len() == 1)["line"].head(1)
    ):
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
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no UTF-8 text: {error.reason} at byte {error.start:,}"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    numeric = [place for place, kind in enumerate(schema.values()) if kind.is_integer()]
    rows: list[list[str]] = []
    line = 1
    try:
        for row in reader:
            fits = (
                row == list(schema)
                if line == 1
                else len(row) == len(schema) and all(_is_id(row[at]) for at in numeric)
            )
            if not fits:
                raise UserError(
                    f"{path} line {line} does not read {','.join(schema)!r}: {','.join(row)[:80]!r}"
                )
            rows.append(row)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {line} is damaged ({error}): is a quote missing?") from None
    table = pl.DataFrame(rows[1:], schema=dict.fromkeys(schema, pl.String), orient="row")
    return table.cast(dict(schema))  # type: ignore[arg-type]


def _is_id(field: str) -> bool:
    return field.isascii() and field.isdecimal() and len(field) < 10  # fits in 32 bits


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
            return f"line {number} has {len(fields)} fields, expected {len(schema)} ({expected!r}): {line[:80]!r}"
        for field, (name, kind) in zip(fields, schema.items(), strict=True):
            if kind.is_numeric() and not field.lstrip("-").replace(".", "", 1).isdigit():
                return f"line {number}: {name} is no number: {line[:80]!r}"
    return f"cannot be read as {expected!r}"


@contextmanager
def open_csv(path: Path) -> Iterator[Path]:
    """A file for ``pl.scan_csv``, plain or compressed; scan and collect it inside the block.

    Polars unpacks gz and zst as it goes, and knows them by their first bytes. An xz file is unpacked to a temporary file,
    which goes when the block ends: disk, not memory, pays for it. A damaged stream, found here or by Polars inside the block,
    ends in one line that names ``path``.

    Raises:
        UserError: if the file is missing, empty, a folder or damaged, unpacks to absurdly much, or there is no room to
            unpack it.
    """
    is_xz = _first_bytes(path) == XZ_MAGIC
    if fault := too_large(path):
        raise UserError(f"{path} {fault}")
    try:
        if is_xz:
            with tempfile.NamedTemporaryFile(prefix="twotower-", suffix=".csv") as plain:
                _unpack_xz(path, plain)
                yield Path(plain.name)
        else:
            yield path
    except (EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch it again") from error
    except (
        OSError
    ) as error:  # Polars' word for a broken stream has no number; a real one of the system has
        if error.errno is not None or "os error" in str(error):
            raise
        raise UserError(f"{path} is damaged or cut short ({error}): fetch it again") from error


def _first_bytes(path: Path) -> bytes:
    head = _read(path, len(XZ_MAGIC))
    if not head:
        raise UserError(f"{path} is empty")
    return head


def _unpack_xz(path: Path, target: IO[bytes]) -> None:
    try:
        with lzma.open(path) as source:
            left = limit(path)
            while block := source.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise UserError(
                        f"{path} unpacks to more than {limit(path):,} bytes, which looks like a bomb: if you trust it, "
                        f"unpack it, xz -dk {path}"
                    )
                target.write(block)
        target.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        folder = tempfile.gettempdir()
        raise UserError(
            f"{folder} has no room to unpack {path}: set TMPDIR to a larger folder, or unpack it by hand"
        ) from error
