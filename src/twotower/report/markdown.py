"""The report as Markdown, and blocks of other Markdown files that it replaces."""

import re
from collections.abc import Iterable
from pathlib import Path

from twotower.errors import UserError
from twotower.files import write_text
from twotower.report.answer import Answer, answers
from twotower.report.blocks import Block, Report
from twotower.report.grid import Grid, Line, make_grid, parts_grid
from twotower.report.protocol import facts, repeats
from twotower.report.section import Section
from twotower.report.text import (
    ALL_VARIANTS,
    ONE_PART,
    PROTOCOL,
    REPEATS,
    SECTIONS,
    legend,
    title,
)

BLOCK = re.compile(r"<!-- report:(?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- /report -->", re.S)
MARKUP = re.compile(r"[\\`*\[\]<>|#~$]|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def as_markdown(report: Report) -> str:
    """For each data set the answers, tables and protocol; then the legend, and what is left out.

    What is known over data sets comes before them, searches after.
    """
    parts = [part for block in report.across for part in _block(block)]
    parts += [SECTIONS] if len(report.sections) > 1 else []
    for section in report.sections:
        parts.append(f"**{escape(title(section))}**")
        parts.append(_answers(answers(section)))
        pairs = parts_grid(section)
        if pairs:
            parts += [f"**{ONE_PART}**", _table(pairs)]
        parts += [f"**{ALL_VARIANTS}**", _table(make_grid(section))]
        parts += [f"**{PROTOCOL}**", *_protocol(section)]
    parts += [part for block in report.searches for part in _block(block)]
    words = legend(report.sections).items()
    parts.append(_list(f"{word}: {text}" for word, text in words))
    if report.left_out:
        parts.append("Left out:")
        parts.append(_list(f"{_code(run.name)}: {escape(run.reason)}" for run in report.left_out))
    return "\n\n".join(filter(None, parts))


def _block(block: Block) -> list[str]:
    parts = [f"**{escape(block.title)}**", _answers(block.answers)]
    for name, grid in block.tables.items():
        parts += [f"**{escape(name)}**", _table(grid)]
    return [*parts, _list(f"{word}: {text}" for word, text in block.words.items())]


def _answers(found: list[Answer]) -> str:
    return _list(f"**{escape(own.lead)}**{escape(own.rest)}" for own in found)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _protocol(section: Section) -> list[str]:
    lines = []
    for repeat in repeats(section):
        folders = ", ".join(map(_code, repeat.folders))
        lines.append(f"{_code(repeat.label)}: {_code(repeat.command)}; run folders {folders}")
    return [
        _list(f"{name}: {escape(value)}" for name, value in facts(section).items()),
        f"<details><summary>{REPEATS}</summary>",
        _list(lines),
        "</details>",
    ]


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
    cells[0] = f"*{escape(cells[0])}*" if line.is_reference else _code(cells[0])
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = f"**{cells[grid.difference]}**"
    return cells


def block_of(path: Path, name: str | None) -> tuple[str, re.Match[str]]:
    """A file's text, and its block between ``<!-- report:name -->`` and ``<!-- /report -->``.

    Args:
        path: of the file.
        name: of the block; None if the file has only one.

    Raises:
        UserError: if the file cannot be read, and if there is no such block or more than one.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", "it is no text")
        raise UserError(f"update={path}: {what}; name a Markdown file with a block") from None
    blocks = [match for match in BLOCK.finditer(text) if name in (None, match["name"])]
    if len(blocks) != 1:
        names = ", ".join(match["name"] for match in BLOCK.finditer(text)) or "no block"
        raise UserError(
            f"update={path}: it has {names}; block=NAME chooses one that stands there once, "
            f"between the lines <!-- report:{name or 'NAME'} --> and <!-- /report -->"
        )
    return text, blocks[0]


def update(path: Path, name: str | None, text: str) -> None:
    """Replace the text of a block, see :func:`block_of`."""
    old, block = block_of(path, name)
    start, end = block.span("body")
    write_text(path, f"{old[:start]}\n{text}\n\n{old[end:]}")
