"""One HTML page that holds everything: no other file, no network."""

import base64
from html import escape
from pathlib import Path

from twotower.report.document import Report
from twotower.report.grid import Grid, Line, make_grid
from twotower.report.quoted import Quoted
from twotower.report.section import Section
from twotower.report.text import method, metric_name, separate, title

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 76rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
thead th { border-bottom: 2px solid #222; }
tr.quoted td { color: #666; font-style: italic; }
td small { display: block; color: #666; }
p.legend { font-size: .88rem; color: #555; max-width: 60rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
dl.left { font-size: .9rem; } dl.left dt { font-family: monospace; } dl.left dd { margin: 0 0 .4rem 1.5rem; color: #555; }
""".strip()


def as_html(report: Report, plots: list[dict[str, Path]]) -> str:
    """The page.

    Args:
        report: what it shows.
        plots: for each data set the images by what they show.
    """
    metric = metric_name(report.wanted.metric)
    body = [
        f"<h1>{escape(', '.join(dict.fromkeys(section.name for section in report.sections)))}: {escape(metric)}</h1>"
    ]
    if len(report.sections) > 1:
        body.append(f"<p>{escape(separate(report.sections))}</p>")
    for (section, quoted), images in zip(report.pairs(), plots, strict=True):
        body += _section(section, quoted, images, report)
    if report.left_out:
        body += ["<h2>Left out</h2>", '<dl class="left">']
        body += [
            f"<dt>{escape(run.name)}</dt><dd>{escape(run.reason)}</dd>" for run in report.left_out
        ]
        body.append("</dl>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Report: {escape(metric)}</title>'
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        f"<head>{head}<style>",
        STYLE,
        "</style></head>",
        "<body>",
        *body,
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _section(
    section: Section, quoted: list[Quoted], images: dict[str, Path], report: Report
) -> list[str]:
    grid = make_grid(section, quoted, report.wanted)
    parts = [f"<h2>{escape(title(section))}</h2>", f'<div class="wide">{_table(grid)}</div>']
    parts.append(f'<p class="legend">{escape(method([section], report.wanted))}</p>')
    return parts + [
        f'<figure><img alt="{escape(name)}" src="{_inlined(path)}"></figure>'
        for name, path in images.items()
    ]


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in grid.heading)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_row(line, grid) for line in grid.lines)}</tbody></table>"


def _row(line: Line, grid: Grid) -> str:
    cells = [escape(cell) for cell in line.cells]
    if grid.difference is not None:
        for place in range(grid.difference, len(cells)):
            first, comma, rest = cells[place].partition(", p")
            cells[place] = f"{first}<small>p{rest}</small>" if comma else first
            first, semicolon, note = cells[place].partition("; ")  # see grid._compared
            cells[place] = f"{first}<small>{note}</small>" if semicolon else first
        if line.is_clear:
            cells[grid.difference] = f"<strong>{cells[grid.difference]}</strong>"
    kind = ' class="quoted"' if line.is_quoted else ""
    return f"<tr{kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _inlined(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
