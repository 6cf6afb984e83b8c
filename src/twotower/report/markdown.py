"""The report as Markdown: tables for files that people keep, and blocks in them that are written anew."""

import re
from pathlib import Path

from twotower.files import write_text
from twotower.report.grid import Grid, Line
from twotower.types import UserError

BLOCK = re.compile(r"<!-- report:(?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- /report -->", re.S)


def table(grid: Grid) -> str:
    """Heading and rows; labels as code, so that nothing in them is taken for mark-up."""
    lines = [_line(grid.heading), _line(["---", *["---:"] * (len(grid.heading) - 1)])]
    return "\n".join([*lines, *(_line(_cells(line, grid)) for line in grid.lines)])


def _cells(line: Line, grid: Grid) -> list[str]:
    cells = list(line.cells)
    cells[0] = f"*{cells[0]}*" if line.is_quoted else f"`{cells[0]}`"
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = f"**{cells[grid.difference]}**"
    return cells


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def update(path: Path, name: str | None, text: str) -> None:
    """Write ``text`` between the markers ``<!-- report:name -->`` and ``<!-- /report -->`` of a file.

    Args:
        path: of the file.
        name: of the block; None where the file has only one.
        text: replaces what stands there.

    Raises:
        UserError: if there is no such block, or more than one and no name.
    """
    try:
        old = path.read_text()
    except OSError as error:
        raise UserError(f"update={path}: {error.strerror}") from error
    blocks = [match for match in BLOCK.finditer(old) if name in (None, match["name"])]
    if not blocks:
        raise UserError(f"update={path}: put <!-- report:{name or 'NAME'} --> and <!-- /report --> there, on lines of their own")
    if len(blocks) > 1:
        names = ", ".join(match["name"] for match in blocks)
        raise UserError(f"update={path}: it has the blocks {names}: say which by block=, and give no two the same name")
    start, end = blocks[0].span("body")
    write_text(path, f"{old[:start]}\n{text}\n\n{old[end:]}")
