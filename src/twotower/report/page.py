"""The report as one HTML page, which needs no other file and no network."""

import base64
from html import escape
from pathlib import Path

from twotower.report.grid import Grid, Line, make_grid
from twotower.report.section import Report, Section
from twotower.report.text import legend, metric_name, title

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Report: {metric}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.25rem; margin-top: 2.5rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; vertical-align: top; }}
th:first-child, td:first-child {{ text-align: left; white-space: normal; }}
thead th {{ border-bottom: 2px solid #222; }}
tr.quoted td {{ color: #666; font-style: italic; }}
td small {{ display: block; color: #666; }}
p.legend {{ font-size: .88rem; color: #555; max-width: 60rem; }}
figure {{ margin: 1.5rem 0; }} img {{ max-width: 100%; height: auto; }}
dt {{ font-family: monospace; }} dd {{ margin: 0 0 .4rem 1.5rem; color: #555; }}
</style></head>
<body>
{body}
</body>
</html>
"""


def as_html(report: Report, plots: list[dict[str, Path]]) -> str:
    """The page; ``plots`` holds for each data set the images by their names."""
    metric = escape(metric_name(report.sections[0].options.metric))
    names = ", ".join(dict.fromkeys(section.name for section in report.sections))
    body = [f"<h1>{escape(names)}: {metric}</h1>"]
    for section, images in zip(report.sections, plots, strict=True):
        body += _section(section, images)
    body.append(f'<p class="legend">{escape(legend(report.sections))}</p>')
    if report.left_out:
        body.append("<h2>Left out</h2><dl>")
        for run in report.left_out:
            body.append(f"<dt>{escape(run.name)}</dt><dd>{escape(run.reason)}</dd>")
        body.append("</dl>")
    return PAGE.format(metric=metric, body="\n".join(body))


def _section(section: Section, images: dict[str, Path]) -> list[str]:
    body = [f"<h2>{escape(title(section))}</h2>", _table(make_grid(section))]
    for name, path in images.items():
        data = base64.b64encode(path.read_bytes()).decode()
        image = f'<img alt="{name.replace("_", " ")}" src="data:image/png;base64,{data}">'
        body.append(f"<figure>{image}</figure>")
    return body


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in grid.heading)
    rows = "".join(_row(line, grid) for line in grid.lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _row(line: Line, grid: Grid) -> str:
    cells = []
    for place, cell in enumerate(line.cells):
        first, _, second = escape(cell).partition("\n")
        if line.is_clear and place == grid.difference:
            first = f"<strong>{first}</strong>"
        cells.append(f"<td>{first}{f'<small>{second}</small>' if second else ''}</td>")
    kind = ' class="quoted"' if line.is_quoted else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"
