"""The report as one HTML page, which needs no other file and no network."""

import base64
from collections.abc import Sequence
from html import escape
from itertools import chain
from pathlib import Path

from twotower.report.alt import describe
from twotower.report.answer import Answer, answers
from twotower.report.blocks import Block, Report
from twotower.report.grid import Grid, Line, make_grid, parts_grid
from twotower.report.protocol import facts, repeats
from twotower.report.section import Section
from twotower.report.style import STYLE
from twotower.report.text import (
    ALL_VARIANTS,
    ONE_PART,
    PROTOCOL,
    REPEATS,
    SECTIONS,
    legend,
    metric_name,
    title,
)

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Report: {metric}</title>
<style>
{style}</style></head>
<body>
{body}
</body>
</html>
"""


def as_html(
    report: Report, plots: list[dict[str, Path]], others: Sequence[dict[str, Path]] = ()
) -> str:
    """The page.

    Args:
        report: what it shows.
        plots: for each data set the images by their names.
        others: the same for each block.
    """
    names = dict.fromkeys(section.name for section in report.sections)
    metric = "".join(metric_name(own.options.metric) for own in report.sections[:1]) or "search"
    heading = f"{', '.join(names)}: {metric}" if names else metric
    body = [f"<h1>{escape(heading)}</h1>"]
    blocks = [_block(*pair) for pair in zip(report.blocks, others, strict=True)]
    num_first = len(report.across)
    body += chain.from_iterable(blocks[:num_first])
    if len(report.sections) > 1:
        body.append(f"<p>{SECTIONS}</p>")
    for section, images in zip(report.sections, plots, strict=True):
        body += _section(section, images)
    body += chain.from_iterable(blocks[num_first:])
    if report.sections:
        body += ["<h2>How to read the tables</h2>", _pairs(legend(report.sections))]
    if report.left_out:
        left_out = {run.name: run.reason for run in report.left_out}
        body += ["<h2>Left out</h2>", _pairs(left_out)]
    return PAGE.format(metric=escape(metric), style=STYLE, body="\n".join(body))


def _section(section: Section, images: dict[str, Path]) -> list[str]:
    body = [f"<h2>{escape(title(section))}</h2>"]
    body.append(_answers(answers(section)))
    pairs = parts_grid(section)
    if pairs:
        body += [f"<h3>{ONE_PART}</h3>", _table(pairs)]
    body += [f"<h3>{ALL_VARIANTS}</h3>", _table(make_grid(section))]
    for name, path in images.items():
        body.append(_figure(path.read_bytes(), describe(name, section)))
    body += [f"<h3>{PROTOCOL}</h3>", _pairs(facts(section)), *_repeats(section)]
    return body


def _block(block: Block, images: dict[str, Path]) -> list[str]:
    body = [f"<h2>{escape(block.title)}</h2>", _answers(block.answers)]
    for name, grid in block.tables.items():
        body += [f"<h3>{escape(name)}</h3>", _table(grid)]
    for plot in block.plots:
        if plot.name in images:
            body.append(_figure(images[plot.name].read_bytes(), plot.alt))
    return [*body, _pairs(block.words)]


def _answers(found: list[Answer]) -> str:
    lines = "".join(
        f"<li><strong>{escape(own.lead)}</strong>{escape(own.rest)}</li>" for own in found
    )
    return f'<ul class="answers">{lines}</ul>' if lines else ""


def _figure(png: bytes, alt: str) -> str:
    """The picture, at its own width or, on a phone, at a part of it that can be scrolled."""
    width = int.from_bytes(png[16:20], "big")  # of the PNG's header
    data = base64.b64encode(png).decode()
    style = f'style="--width: {width}px"'
    image = f'<img alt="{escape(alt)}" {style} src="data:image/png;base64,{data}">'
    return f'<figure class="wide">{image}</figure>'


def _repeats(section: Section) -> list[str]:
    body = [f"<details><summary>{REPEATS}</summary>"]
    for repeat in repeats(section):
        folders = "".join(f"<li>{escape(name)}</li>" for name in repeat.folders)
        body.append(f"<h4>{escape(repeat.label)}</h4>")
        body.append(f"<pre>{escape(repeat.command)}</pre><ul>{folders}</ul>")
    return [*body, "</details>"]


def _pairs(words: dict[str, str]) -> str:
    items = (f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in words.items())
    return f"<dl>{''.join(items)}</dl>"


def _table(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in grid.heading)
    rows = "".join(_row(line, grid) for line in grid.lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _row(line: Line, grid: Grid) -> str:
    cells = []
    for place, cell in enumerate(line.cells):
        first, _, second = escape(cell).partition("\n")
        if line.is_clear and place == grid.difference:
            first = f"<strong>{first}</strong>"
        tag = "td" if place else 'th scope="row"'
        small = f"<small>{second}</small>" if second else ""
        cells.append(f"<{tag}>{first}{small}</{tag[:2]}>")
    kind = ' class="reference"' if line.is_reference else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"
