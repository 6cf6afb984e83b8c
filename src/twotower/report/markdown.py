"""The report as Markdown: tables for files that people keep, and blocks in them that are written anew."""

import re
from pathlib import Path

from twotower.report.runs import LeftOut
from twotower.report.section import Difference, Row, Section, Wanted
from twotower.report.text import interval, method, metric_name, p_value, relative, separate, signed, title, with_spread
from twotower.results import write_text
from twotower.types import UserError

BLOCK = re.compile(r"(?P<start><!-- report:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<end><!-- /report -->)", re.S)


def document(sections: list[Section], left_out: list[LeftOut], wanted: Wanted) -> str:
    """All data sets, and what is not counted."""
    parts = [table(section, wanted) for section in sections]
    if len(sections) > 1:
        parts.insert(0, separate(sections))
    if left_out:
        parts.append("\n".join(["Not counted:", "", *(f"- `{run.name}`: {run.reason}" for run in left_out)]))
    return "\n\n".join(parts)


def table(section: Section, wanted: Wanted) -> str:
    """Heading, table and legend of one data set."""
    names = (wanted.metric, *wanted.columns)
    head = ["variant", "seeds", *map(metric_name, names)]
    compared = len(section.rows) > 1
    if compared:
        head += [f"Δ {metric_name(wanted.metric)}", "over users", "over seeds"]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(row, section, wanted, compared)) for row in section.rows]
    return "\n".join([f"**{title(section)}**", "", *lines, "", *method(section, wanted)])


def _cells(row: Row, section: Section, wanted: Wanted, compared: bool) -> list[str]:
    cells = [f"`{row.variant.label}`", str(len(row.variant.seeds))]
    cells += [with_spread(row.values[name]) for name in (wanted.metric, *wanted.columns)]
    if not compared:
        return cells
    if row.difference is None:
        return [*cells, "baseline", "", ""]
    return cells + _difference(row.difference, section.rows[0].values[wanted.metric][0], wanted)


def _difference(difference: Difference, start: float, wanted: Wanted) -> list[str]:
    value = f"{signed(difference.value)} ({relative(difference.value, start)})"
    cells = [f"**{value}**" if difference.is_clear(wanted.level) else value]
    for evidence in (difference.users, difference.seeds):
        cells.append(f"{interval(evidence)}, {p_value(evidence.adjusted)}" if evidence else "")
    return cells


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
    blocks = {match["name"]: match for match in BLOCK.finditer(old)}
    if not blocks or (name is not None and name not in blocks):
        wanted = name or "NAME"
        raise UserError(
            f"update={path}: there is no block; put <!-- report:{wanted} --> and <!-- /report --> on lines of their own"
        )
    if name is None and len(blocks) > 1:
        raise UserError(f"update={path}: it has several blocks: add block= and one of {', '.join(blocks)}")
    match = blocks[name or next(iter(blocks))]
    write_text(path, f"{old[: match.start('body')]}\n{text}\n\n{old[match.end('body') :]}")
