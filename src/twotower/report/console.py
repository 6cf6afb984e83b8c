"""The report in the terminal."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from twotower.report.document import Report
from twotower.report.grid import Grid, Line, make_grid
from twotower.report.text import method, separate, title


def show(report: Report, console: Console) -> None:
    """Print a table for each data set, the legend, and what is not counted."""
    if len(report.sections) > 1:
        console.print(separate(report.sections), markup=False)
    for section, quoted in report.pairs():
        for table in _tables(title(section), make_grid(section, quoted, report.wanted), console):
            console.print(table)
    console.print(
        method(report.sections, report.wanted), style="dim", markup=False, highlight=False
    )
    for run in report.left_out:
        reason = run.reason if run.reason.startswith("left out") else f"left out: {run.reason}"
        console.print(Text.assemble((run.name, "yellow"), f": {reason}"), highlight=False)


def _tables(name: str, grid: Grid, console: Console) -> list[Table]:
    """One, or two where that would be wider than the terminal."""
    places = range(len(grid.heading))
    whole = _table(name, grid, list(places))
    if (
        grid.difference is None
        or Measurement.get(console, console.options.update(max_width=1000), whole).maximum
        <= console.width
    ):
        return [whole]
    return [
        _table(name, grid, list(places[: grid.difference])),
        _table("", grid, [0, *places[grid.difference :]]),
    ]


def _table(name: str, grid: Grid, places: list[int]) -> Table:
    table = Table(title=Text(name) if name else None, pad_edge=False)
    for place in places:
        table.add_column(
            Text(grid.heading[place]), justify="right" if place else "left", overflow="fold"
        )
    for line in grid.lines:
        cells = _cells(line, grid)
        if any(cells[place] for place in places[1:]):
            table.add_row(
                *(cells[place] for place in places), style="dim" if line.is_quoted else None
            )
    return table


def _cells(line: Line, grid: Grid) -> list[Text]:
    cells = [
        Text(cell.replace(", p ", "\np ").replace("; ", "\n") if place else cell)
        for place, cell in enumerate(line.cells)
    ]
    if line.is_clear and grid.difference is not None:
        cells[grid.difference].stylize("bold green")
    return cells
