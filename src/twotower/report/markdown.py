"""The report as Markdown: tables for files that people keep, and blocks in them that are written anew."""

import re
from pathlib import Path

from twotower.errors import UserError
from twotower.files import write_text
from twotower.report.grid import Grid, Line

BLOCK = re.compile(r"<!-- report:(?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- /report -->", re.S)

SPECIAL = re.compile(r"[\\`*\[\]<>|#~$]|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
SPECIAL_IN_CODE = re.compile(r"[\\`<>&|]|\]\(|://")
LINK = re.compile(
    r"[a-z]+://|\bwww\.|\b(mailto|xmpp):|\w@(?=[\w-]+\.)", re.I
)  # GitHub makes links of these where they stand


def table(grid: Grid) -> str:
    """Heading and rows; labels as code, so that nothing in them is taken for mark-up."""
    lines = [_line(grid.heading), _line(["---", *["---:"] * (len(grid.heading) - 1)])]
    return "\n".join([*lines, *(_line(_cells(line, grid)) for line in grid.lines)])


def text(name: str) -> str:
    """Text from data as Markdown shows it: it makes no heading, link, image, formula, HTML or cell."""
    name = SPECIAL.sub(_entity, name)
    return LINK.sub(lambda match: re.sub(r"[.:@]", _entity, match[0]), name)


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def code(name: str) -> str:
    """A name from data as code."""
    if name.strip() == name and name and not SPECIAL_IN_CODE.search(name):
        return f"`{name}`"
    return f"<code>{text(name)}</code>"  # in there such characters can be escaped


def _cells(line: Line, grid: Grid) -> list[str]:
    cells = list(line.cells)
    cells[0] = f"*{text(cells[0])}*" if line.is_quoted else code(cells[0])
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = f"**{cells[grid.difference]}**"
    return cells


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


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
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"update={path}: {reason}") from error
    blocks = [match for match in BLOCK.finditer(old) if name in (None, match["name"])]
    if not blocks:
        raise UserError(
            f"update={path}: put <!-- report:{name or 'NAME'} --> and <!-- /report --> there, on lines of their own"
        )
    if len(blocks) > 1:
        names = ", ".join(match["name"] for match in blocks)
        raise UserError(
            f"update={path}: it has the blocks {names}: say which by block=, and give no two the same name"
        )
    start, end = blocks[0].span("body")
    write_text(path, f"{old[:start]}\n{text}\n\n{old[end:]}")
