"""The report in the terminal."""

from rich.table import Table
from rich.text import Text

from twotower.report.grid import Grid, make_grid
from twotower.report.section import Report
from twotower.report.text import legend, title
from twotower.wording import PlainConsole


def show(report: Report, console: PlainConsole) -> None:
    """Print two tables for each data set, the legend, and what is left out."""
    for section in report.sections:
        grid = make_grid(section)
        places = range(len(grid.heading))
        console.print(_table(grid, list(places[: grid.difference]), title(section)))
        if grid.difference is not None:
            console.print(_table(grid, [0, *places[grid.difference :]]))
    console.print(legend(report.sections), style="dim")
    if report.left_out:
        console.print("Left out:")
    for run in report.left_out:
        console.print(Text.assemble((run.name, "yellow"), f": {run.reason}"))


def _table(grid: Grid, places: list[int], title: str | None = None) -> Table:
    """Some columns of the grid; rows without anything in them are left out."""
    table = Table(title=title, pad_edge=False)
    for place in places:
        heading = grid.heading[place]
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for line in grid.lines:
        cells = [Text(line.cells[place]) for place in places]
        if line.is_clear and grid.difference in places:
            cells[places.index(grid.difference)].stylize("bold green")
        if any(cells[1:]):
            table.add_row(*cells, style="dim" if line.is_quoted else None)
    return table
