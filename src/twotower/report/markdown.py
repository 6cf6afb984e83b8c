"""The report as Markdown, and blocks of other Markdown files that it replaces."""

import re
from pathlib import Path

from twotower.errors import UserError
from twotower.files import write_text
from twotower.report.grid import Grid, Line, make_grid
from twotower.report.section import Report
from twotower.report.text import legend, title

BLOCK = re.compile(r"<!-- report:(?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- /report -->", re.S)
MARKUP = re.compile(r"[\\`*\[\]<>|#~$]|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def as_markdown(report: Report) -> str:
    """Tables, legend, and what is left out."""
    parts = []
    for section in report.sections:
        parts += [f"**{escape(title(section))}**", _table(make_grid(section))]
    parts.append(legend(report.sections))
    if report.left_out:
        parts.append("Left out:")
        lines = [f"- {_code(run.name)}: {escape(run.reason)}" for run in report.left_out]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Text from data without markup."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", text)


def _code(name: str) -> str:
    """A name as code, which a table cell and its own backticks must not end."""
    return f"<code>{escape(name)}</code>" if MARKUP.search(name) else f"`{name}`"


def _table(grid: Grid) -> str:
    rows = [grid.heading, ["---", *["---:"] * (len(grid.heading) - 1)]]
    rows += [_cells(line, grid) for line in grid.lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(line: Line, grid: Grid) -> list[str]:
    cells = [cell.replace("\n", ", ") for cell in line.cells]
    cells[0] = f"*{escape(cells[0])}*" if line.is_quoted else _code(cells[0])
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = f"**{cells[grid.difference]}**"
    return cells


def update(path: Path, name: str | None, text: str) -> None:
    """Replace the text between ``<!-- report:name -->`` and ``<!-- /report -->`` in a file.

    Args:
        path: of the file.
        name: of the block; None if the file has only one.
        text: goes there.

    Raises:
        UserError: if there is no such block or more than one.
    """
    old = path.read_text()
    blocks = [match for match in BLOCK.finditer(old) if name in (None, match["name"])]
    if len(blocks) != 1:
        names = ", ".join(match["name"] for match in BLOCK.finditer(old)) or "no block"
        raise UserError(
            f"update={path}: it has {names}; block=NAME chooses one that stands there once, "
            f"between the lines <!-- report:{name or 'NAME'} --> and <!-- /report -->"
        )
    start, end = blocks[0].span("body")
    write_text(path, f"{old[:start]}\n{text}\n\n{old[end:]}")
