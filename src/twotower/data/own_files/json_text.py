"""JSON lines as programs write them, made what Polars reads: no marks, no ``NaN``, and no nesting that would hang it."""

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from twotower.data.own_files.text import UNSEEN, line_end_of, lines_of
from twotower.errors import UserError

MAX_DEPTH = 50  # the time that Polars takes grows with the third power of the depth
STRING = r'"(?:\\.|[^"\\])*"'
NO_NUMBER = re.compile(rf"{STRING}|-?\b(?:NaN|Infinity)\b")
BRACKET = re.compile(rf"{STRING}|([\[{{])|[\]}}]")
MARKS = "\ufeff\x1e \t\r"  # a byte order mark, and the one before each record of a JSON text sequence


def readable(path: Path, name: Path, stack: ExitStack) -> Path:
    """``path``, or a temporary file with its lines mended: one object each, ``null`` for ``NaN`` and ``Infinity``.

    Args:
        path: the file, gz and zst as they are.
        name: what the user calls it.
        stack: removes the temporary file when it is closed.

    Raises:
        UserError: naming the line that nests more than 50 deep.
    """
    end = line_end_of(path)
    lines = lines_of(path, end)
    line = pl.col("line")
    opened = line.str.count_matches("[", literal=True) + line.str.count_matches("{", literal=True)
    depth = pl.when(opened > MAX_DEPTH).then(line).map_elements(_depth, return_dtype=pl.Int64)
    is_odd = line.str.contains(r"NaN|Infinity") | line.str.contains(r"[,\x1e]\s*$|^\s*[\x1e\x{feff}]")
    seen = lines.with_row_index("number", 1).select(odd=is_odd.any(), deep=pl.col("number").filter(depth > MAX_DEPTH).min())
    odd, deep = seen.collect(engine="streaming").row(0)
    if deep is not None:
        raise UserError(
            f"{name} line {deep:,} holds lists or objects nested more than {MAX_DEPTH} deep: remove that field or that line"
        )
    return _mended(lines, stack) if odd or end == "\r" or not _starts_well(path) else path


def _starts_well(path: Path) -> bool:
    """Can Polars read the first line?"""
    try:
        pl.scan_ndjson(path, infer_schema_length=1).head(1).collect()
    except pl.exceptions.PolarsError:
        return False
    return True


def _mended(lines: pl.LazyFrame, stack: ExitStack) -> Path:
    target = stack.enter_context(tempfile.NamedTemporaryFile(prefix="twotower-", suffix=".jsonl"))  # noqa: SIM115
    mended = lines.drop_nulls().select(pl.col("line").map_elements(_mend, return_dtype=pl.String))
    mended.sink_csv(Path(target.name), include_header=False, separator=UNSEEN, quote_style="never")
    return Path(target.name)


def _mend(line: str) -> str:
    line = line.strip(MARKS).removesuffix(",")
    return NO_NUMBER.sub(lambda found: found[0] if found[0].startswith('"') else "null", line)


def _depth(line: str) -> int:
    """How deep lists and objects nest; brackets in strings do not count."""
    depth = deepest = 0
    for found in BRACKET.finditer(line):
        if found[1]:
            depth += 1
            deepest = max(deepest, depth)
        elif not found[0].startswith('"'):
            depth -= 1
    return deepest
