"""The report in the terminal."""

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from twotower.report.answer import Answer, answers
from twotower.report.blocks import Block, Report
from twotower.report.grid import Grid, make_grid, parts_grid
from twotower.report.text import ALL_VARIANTS, ONE_PART, SECTIONS, legend, title
from twotower.wording import PlainConsole

MAX_PAIRS = 20


def show(report: Report, console: PlainConsole) -> None:
    """Print the answers and tables of each data set and block, the legend, and what is left out."""
    for block in report.across:
        _block(block, console)
    if len(report.sections) > 1:
        console.print(SECTIONS)
    for section in report.sections:
        console.print(Text(title(section), style="bold"))
        _answers(answers(section), console)
        pairs = parts_grid(section)
        if pairs:
            _show(pairs._replace(lines=pairs.lines[:MAX_PAIRS]), ONE_PART, console)
            if len(pairs.lines) > MAX_PAIRS:
                console.print(f"{len(pairs.lines) - MAX_PAIRS} more pairs are in the files.")
        _show(make_grid(section), ALL_VARIANTS, console)
    for block in report.searches:
        _block(block, console)
    words = legend(report.sections).items()
    console.print(Text("\n".join(f"{word}: {text}" for word, text in words)), style="dim")
    if report.left_out:
        console.print("Left out:")
    for run in report.left_out:
        console.print(Text.assemble((run.name, "yellow"), f": {run.reason}"))


def _block(block: Block, console: PlainConsole) -> None:
    console.print(Text(block.title, style="bold"))
    _answers(block.answers, console)
    for name, grid in block.tables.items():
        console.print(_table(grid, list(range(grid.details)), name))
    words = [f"{word}: {text}" for word, text in block.words.items()]
    console.print(Text("\n".join(words), style="dim"))


def _answers(found: list[Answer], console: PlainConsole) -> None:
    for answer in found:
        console.print(Text.assemble("• ", (answer.lead, "bold"), answer.rest))


def _show(grid: Grid, name: str, console: PlainConsole) -> None:
    """The table, in two parts: both would be wider than most terminals."""
    places = range(len(grid.heading))
    console.print(_table(grid, list(places[: grid.details]), name))
    if grid.details < len(places):
        console.print(_table(grid, [0, *places[grid.details :]]))


def _table(grid: Grid, places: list[int], title: str | None = None) -> Table:
    """Some columns of the grid; rows without anything in them are left out."""
    table = Table(title=title, pad_edge=False, box=SIMPLE, collapse_padding=True)
    for place in places:
        heading = grid.heading[place]
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for line in grid.lines:
        cells = [Text(line.cells[place]) for place in places]
        if line.is_clear and grid.difference in places:
            cells[places.index(grid.difference)].stylize("bold green")
        if any(cells[1:]):
            table.add_row(*cells, style="dim" if line.is_reference else None)
    return table
