"""A whole report: what was read, compared and quoted, and its text."""

from typing import NamedTuple

from twotower.report import markdown
from twotower.report.grid import make_grid
from twotower.report.quoted import Quoted
from twotower.report.runs import LeftOut
from twotower.report.section import Section, Wanted
from twotower.report.text import method, separate, title


class Report(NamedTuple):
    """What every format shows.

    Attributes:
        sections: one for each data set.
        quoted: rows of others for each of them.
        left_out: run folders that are not counted, or not everywhere, and why.
        wanted: what was asked for.
    """

    sections: list[Section]
    quoted: list[list[Quoted]]
    left_out: list[LeftOut]
    wanted: Wanted

    def pairs(self) -> list[tuple[Section, list[Quoted]]]:
        """Each data set with what is quoted for it."""
        return list(zip(self.sections, self.quoted, strict=True))


def as_markdown(report: Report) -> str:
    """Tables, legend, and what is not counted."""
    parts = [separate(report.sections)] if len(report.sections) > 1 else []
    for section, quoted in report.pairs():
        parts += [
            f"**{markdown.text(title(section))}**",
            markdown.table(make_grid(section, quoted, report.wanted)),
        ]
    parts.append(method(report.sections, report.wanted))
    if report.left_out:
        parts.append("\n".join(["Left out:", "", *map(_left_out, report.left_out)]))
    return "\n\n".join(parts)


def _left_out(run: LeftOut) -> str:
    return f"- {markdown.code(run.name)}: {markdown.text(run.reason)}"
