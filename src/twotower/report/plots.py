"""All plots of a report: one file each, only those that the runs carry."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from twotower.figures import save_figure
from twotower.report.categories import by_category
from twotower.report.forest import forest
from twotower.report.lambdas import curves, heat_map
from twotower.report.learning import learning
from twotower.report.section import Section, Wanted

PLOTS: dict[str, Callable[[Section, Wanted], Figure | None]] = {
    "differences": forest,
    "lambda_curves": curves,
    "lambda_grid": heat_map,
    "categories": by_category,
    "learning": learning,
}


def draw(section: Section, wanted: Wanted, folder: Path) -> dict[str, Path]:
    """Write the plots of a data set as PNG into ``folder``; those of an earlier report that no longer apply are removed.

    Returns:
        The files by what they show.
    """
    written = {}
    for name, make in PLOTS.items():
        path = folder / f"{section.name}-{section.fingerprint[:6]}-{name}.png"
        path.unlink(missing_ok=True)
        figure = make(section, wanted)
        if figure is not None:
            save_figure(figure, path)
            written[name.replace("_", " ")] = path
    return written
