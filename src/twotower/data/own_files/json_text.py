"""JSON lines as programs write them: values as text, ``null`` for ``NaN``, and no nesting that would hang Polars."""

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from twotower.data.own_files.text import UNSEEN, line_end_of, scan_lines
from twotower.data.own_files.values import is_list_of_labels
from twotower.errors import UserError

MAX_DEPTH = 50  # the time that Polars takes grows with the third power of the depth
STRING = r'"(?:\\.|[^"\\])*"'
NO_NUMBER = re.compile(rf"{STRING}|-?\b(?:NaN|Infinity)\b")
MARKS = (
    "\ufeff\x1e \t\r"  # a byte order mark, and the one before each record of a JSON text sequence
)
BRACKETS = re.compile(rf"{STRING}|[\[\]{{}}]")


def scan_json(path: Path, name: Path, stack: ExitStack, sample: int | None) -> pl.LazyFrame:
    """Scan JSON lines: single values as text, like those of CSV, because a later line may hold another type.

    Args:
        path: the file, gz and zst as they are.
        name: what the user calls it.
        stack: removes the temporary file when it is closed.
        sample: how many lines tell the fields; None for all of them.

    Raises:
        UserError: naming the line that nests more than 50 deep.
    """
    path = _readable(path, name, stack)
    inferred = pl.scan_ndjson(path, infer_schema_length=sample).collect_schema()
    return pl.scan_ndjson(path, schema={column: _type(dtype) for column, dtype in inferred.items()})


def _type(dtype: pl.DataType) -> pl.DataType:
    if not dtype.is_nested():
        return pl.String()
    if is_list_of_labels(dtype):
        return pl.List(pl.String)
    return dtype  # vectors, objects, and lists of lists


def _readable(path: Path, name: Path, stack: ExitStack) -> Path:
    """``path``, or a temporary file in which ``null`` stands for ``NaN`` and lines end as Polars wants it."""
    end = line_end_of(path)
    lines = scan_lines(path, end)
    line = pl.col("line")
    opened = line.str.count_matches("[", literal=True) + line.str.count_matches("{", literal=True)
    depth = pl.when(opened > MAX_DEPTH).then(line).map_elements(_depth, return_dtype=pl.Int64)
    is_odd = line.str.contains(r"NaN|Infinity")
    too_deep = pl.col("number").filter(depth > MAX_DEPTH).min()
    found = (
        lines.with_row_index("number", 1)
        .select(odd=is_odd.any(), deep=too_deep)
        .collect(engine="streaming")
    )
    odd, deep = found.row(0)
    if deep is not None:
        raise UserError(
            f"{name} line {deep:,} holds lists or objects nested more than {MAX_DEPTH} deep: remove that field or that line"
        )
    if not odd and end == "\n" and _starts_well(path):
        return path
    target = stack.enter_context(tempfile.NamedTemporaryFile(prefix="twotower-", suffix=".jsonl"))  # noqa: SIM115
    mended = lines.drop_nulls().select(line.map_elements(_mend, return_dtype=pl.String))
    mended.sink_csv(Path(target.name), include_header=False, separator=UNSEEN, quote_style="never")
    return Path(target.name)


def _starts_well(path: Path) -> bool:
    """Can Polars read the first line? It may begin with a mark, or end with the comma of a list."""
    try:
        pl.scan_ndjson(path, infer_schema_length=1).head(1).collect()
    except pl.exceptions.PolarsError:
        return False
    return True


def _mend(line: str) -> str:
    line = line.strip(MARKS).removesuffix(",")
    return NO_NUMBER.sub(lambda found: found[0] if found[0].startswith('"') else "null", line)


def _depth(line: str) -> int:
    """How deep lists and objects nest; brackets in strings do not count."""
    depth = deepest = 0
    for mark in BRACKETS.findall(line):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest
