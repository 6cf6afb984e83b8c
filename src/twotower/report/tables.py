"""The tables as CSV for programs and as LaTeX for papers."""

import csv
import io
import re
from typing import Any

from twotower.report.document import Report
from twotower.report.grid import Grid, Line, make_grid
from twotower.report.quoted import Quoted
from twotower.report.section import Row, Wanted
from twotower.report.statistics import Evidence
from twotower.report.text import metric_name, title

FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}
SPECIAL |= {character: f"{{{character}}}" for character in "[]*"}  # a row may begin with them
SPECIAL |= {"|": r"\textbar{}"}
SPECIAL |= {
    "±": r"$\pm$",
    "−": "$-$",
    "+": "$+$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "<": "$<$",
    ">": "$>$",
    "=": "$=$",
}


def as_csv(report: Report) -> str:
    """One row for each variant and each quoted model, unrounded."""
    rows = []
    for section, quoted in report.pairs():
        head = {"data": section.name, "fingerprint": section.fingerprint}
        rows += [{**head, **_own(row, report.wanted)} for row in section.rows]
        rows += [{"data": section.name, **_others(row)} for row in quoted]
    text = io.StringIO()
    names = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Numbers as they are; text that a spreadsheet would compute gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _own(row: Row, wanted: Wanted) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "variant": row.variant.label,
        "source": "",
        "seeds": " ".join(map(str, row.variant.seeds)),
    }
    for name, (mean, spread) in row.values.items():
        cells |= {name: mean, f"{name} sd": spread}
    if row.difference:
        cells[f"difference {wanted.metric}"] = row.difference.value
        cells["difference seeds"] = str(row.difference.compared)
        cells |= _evidence("users", row.difference.users) | _evidence("seeds", row.difference.seeds)
    return cells


def _evidence(over: str, evidence: Evidence | None) -> dict[str, float]:
    if evidence is None:
        return {}
    return {
        f"{over} {name}": value
        for name, value in zip(("low", "high", "p", "p holm"), evidence, strict=True)
    }


def _others(row: Quoted) -> dict[str, Any]:
    return {"variant": row.model, "source": row.source, **row.metrics}


def as_latex(report: Report) -> str:
    """A booktabs table for each data set; the package booktabs is all that it needs."""
    lines = [r"% \usepackage{booktabs}"]
    for section, quoted in report.pairs():
        grid = make_grid(section, quoted, report.wanted)
        caption = f"{title(section)}. Difference: {metric_name(report.wanted.metric)} to {section.baseline.label}."
        lines += [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(caption)}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(grid.heading) - 1)}}}", r"\toprule"]
        lines += [
            _line(map(escape, grid.heading)),
            r"\midrule",
            *_body(grid),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _body(grid: Grid) -> list[str]:
    own = [_line(_cells(line, grid)) for line in grid.lines if not line.is_quoted]
    others = [_line(_cells(line, grid)) for line in grid.lines if line.is_quoted]
    return own + ([r"\midrule", *others] if others else [])


def _cells(line: Line, grid: Grid) -> list[str]:
    cells = [escape(cell) for cell in line.cells]
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = rf"\textbf{{{cells[grid.difference]}}}"
    return cells


def _line(cells: Any) -> str:
    return " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(SPECIAL.get(character, character) for character in text)
