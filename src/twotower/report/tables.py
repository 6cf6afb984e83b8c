"""The tables as CSV for programs and as LaTeX for papers."""

from typing import Any

import polars as pl

from twotower.report.blocks import Report
from twotower.report.comparison import Comparison
from twotower.report.grid import Grid, Line, make_grid, parts_grid
from twotower.report.statistics import Evidence
from twotower.report.text import ONE_PART, metric_name, title
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
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "τ": r"$\tau$",
    "²": r"$^2$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*"},  # a row may begin with them
    **{character: f"${character}$" for character in "+<>="},
}


def as_csv(report: Report) -> str:
    """One row for each variant, reference and published model, unrounded."""
    rows = []
    for section in report.sections:
        data = {"data": section.name, "fingerprint": section.fingerprint}
        metrics = list(section.options.metrics)
        rows.append(data | _own(section.baseline, metrics))
        for comparison in section.comparisons:
            own = _own(comparison.variant, metrics)
            rows.append(data | own | _compared(comparison, section.options.metric))
        for name, values in section.references.items():
            own = {metric: values[metric] for metric in metrics if metric in values}
            rows.append(data | {"variant": name, "source": "computed by the runs"} | own)
        for row in section.quoted:
            own = {"variant": row.model, "source": row.source}
            rows.append({"data": section.name} | own | row.metrics)
    return csv_of(rows)


def csv_of(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, with an apostrophe before text that a spreadsheet would compute."""
    text = pl.selectors.string().str.replace(FORMULA, "'$0")
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(text).write_csv()


def _own(variant: Variant, metrics: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": variant.label, "source": "", "seeds": _seeds(variant)}
    if variant.budget is not None:
        row["budget"] = variant.budget
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
    """The tables of blocks and of each data set, which need the package booktabs."""
    lines = [r"% \usepackage{booktabs}"]
    for block in report.blocks:
        for name, grid in block.tables.items():
            lines += _latex(grid, f"{block.title}. {name}.")
    for section in report.sections:
        pairs = parts_grid(section)
        if pairs:
            lines += _latex(pairs, f"{title(section)}. {ONE_PART}.")
        metric = metric_name(section.options.metric)
        caption = f"{title(section)}. Difference: {metric} to {section.baseline.label}."
        lines += _latex(make_grid(section), caption)
    return "\n".join(lines) + "\n"


def _latex(grid: Grid, caption: str) -> list[str]:
    columns = "l" + "r" * (len(grid.heading) - 1)
    lines = [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row(Line(grid.heading), grid)]
    for is_reference in (False, True):
        rows = [_row(line, grid) for line in grid.lines if line.is_reference == is_reference]
        lines += [r"\midrule", *rows] if rows else []
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]


def _row(line: Line, grid: Grid) -> str:
    cells = [escape(cell.replace("\n", ", ")) for cell in line.cells]
    if line.is_clear and grid.difference is not None:
        cells[grid.difference] = rf"\textbf{{{cells[grid.difference]}}}"
    return " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(LATEX.get(character, character) for character in text)
