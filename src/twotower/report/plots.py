"""All plots of a report: one file each, only those that the runs have data for."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from twotower.errors import extra
from twotower.plotting import save_figure
from twotower.report.blocks import Block
from twotower.report.categories import categories
from twotower.report.forest import forest
from twotower.report.lambdas import curves, heat_map
from twotower.report.learning import learning
from twotower.report.section import Section

PLOTS: dict[str, Callable[[Section], Figure | None]] = {
    "differences": forest,
    "lambda_curves": curves,
    "lambda_grid": heat_map,
    "categories": categories,
    "learning": learning,
}


def draw(sections: list[Section], folder: Path) -> list[dict[str, Path]]:
    """Write the plots of all data sets as PNG and remove those of an earlier report.

    Returns:
        For each data set the files by the names of the plots.
    """
    written = []
    for number, section in enumerate(sections, 1):
        stem = re.sub(r"[^A-Za-z0-9]+", "_", section.name)[:40]
        paths = {name: folder / f"{stem}-{number}-{name}.png" for name in PLOTS}
        written.append({name: path for name, path in paths.items() if _write(name, section, path)})
    return written


def draw_blocks(blocks: Sequence[Block], folder: Path) -> list[dict[str, Path]]:
    """Write the plots of all blocks as PNG and remove those of an earlier report.

    Returns:
        For each block the files by the names of the plots.
    """
    for pattern in ("across-forest-*.png", "across-dose-*.png", "search-*-budget.png"):
        for path in folder.glob(pattern):
            path.unlink()
    written = []
    for block in blocks:
        paths = [(plot, folder / f"{block.name}-{plot.name}.png") for plot in block.plots]
        written.append({plot.name: path for plot, path in paths if _save(plot.draw, path)})
    return written


def _write(name: str, section: Section, path: Path) -> bool:
    return _save(lambda: PLOTS[name](section), path)


def _save(draw: Callable[[], Figure | None], path: Path) -> bool:
    path.unlink(missing_ok=True)
    with extra(f"the plot {path.name} is"):
        figure = draw()
        if figure is not None:
            save_figure(figure, path)
    return path.exists()
