"""The tables as CSV for programs and as LaTeX for papers."""

from typing import Any

import polars as pl

from twotower.report.grid import Grid, Line, make_grid
from twotower.report.section import Comparison, Report
from twotower.report.statistics import Evidence
from twotower.report.text import metric_name, title
from twotower.report.variants import Variant

FORMULA = r"^\s*[=+\-@＝＋－＠]"
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*"},  # a row may begin with them
    **{character: f"${character}$" for character in "+<>="},
}


def as_csv(report: Report) -> str:
    """One row for each variant and each published model, unrounded."""
    rows = []
    for section in report.sections:
        data = {"data": section.name, "fingerprint": section.fingerprint}
        metrics = list(section.options.metrics)
        rows.append(data | _own(section.baseline, metrics))
        for comparison in section.comparisons:
            own = _own(comparison.variant, metrics)
            rows.append(data | own | _compared(comparison, section.options.metric))
        for row in section.quoted:
            own = {"variant": row.model, "source": row.source}
            rows.append({"data": section.name} | own | row.metrics)
    # An apostrophe before text that a spreadsheet would compute.
    text = pl.selectors.string().str.replace(FORMULA, "'$0")
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(text).write_csv()


def _own(variant: Variant, metrics: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": variant.label, "source": "", "seeds": _seeds(variant)}
    for metric in metrics:
        row |= {metric: variant.mean(metric), f"{metric} sd": variant.spread(metric)}
    return row


def _compared(comparison: Comparison, metric: str) -> dict[str, Any]:
    one, other = _seeds(comparison.one), _seeds(comparison.other)
    return {
        f"difference {metric}": comparison.value,
        "difference seeds": one if one == other else f"{one} against {other}",
        **_evidence("users", comparison.users),
        **_evidence("seeds", comparison.seeds),
    }


def _evidence(over: str, evidence: Evidence | None) -> dict[str, float]:
    names = [f"{over} {name}" for name in ("low", "high", "p", "p holm")]
    return dict(zip(names, evidence, strict=True)) if evidence else {}


def _seeds(variant: Variant) -> str:
    return " ".join(map(str, variant.seeds))


def as_latex(report: Report) -> str:
    """A table for each data set, which needs the package booktabs."""
    lines = [r"% \usepackage{booktabs}"]
    for section in report.sections:
        grid = make_grid(section)
        metric = metric_name(section.options.metric)
        caption = f"{title(section)}. Difference: {metric} to {section.baseline.label}."
        columns = "l" + "r" * (len(grid.heading) - 1)
        lines += [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(caption)}}}"]
        lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row(Line(grid.heading), grid)]
        for is_quoted in (False, True):
            rows = [_row(line, grid) for line in grid.lines if line.is_quoted == is_quoted]
            lines += [r"\midrule", *rows] if rows else []
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _row(line: Line, grid: Grid) -> str:
    cells = [escape(cell.replace("\n", ", ")) for cell in line.cells]
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = rf"\textbf{{{cells[grid.difference]}}}"
    return " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(LATEX.get(character, character) for character in text)
