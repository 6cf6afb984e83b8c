"""All plots of a report: one file each, only those that the runs carry."""

import re
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

from matplotlib.figure import Figure

from twotower.errors import extra
from twotower.files import short_hash
from twotower.plotting import save_figure
from twotower.report.categories import by_category
from twotower.report.forest import forest
from twotower.report.lambdas import curves, heat_map
from twotower.report.learning import learning
from twotower.report.section import Section, Wanted

PLAIN = re.compile(r"[A-Za-z0-9][\w+-]{0,79}", re.ASCII)

PLOTS: dict[str, Callable[[Section, Wanted], Figure | None]] = {
    "differences": forest,
    "lambda_curves": curves,
    "lambda_grid": heat_map,
    "categories": by_category,
    "learning": learning,
}


def stems(sections: list[Section]) -> list[str]:
    """How the files of each data set begin: its name where that is a plain one, and no two alike."""
    found: list[str] = []
    for section in sections:
        name, fingerprint = section.name, section.fingerprint[:6]
        if not PLAIN.fullmatch(name):
            name = f"{re.sub(r'[^A-Za-z0-9]+', '_', name)[:40]}@{short_hash(name)}"
        if not PLAIN.fullmatch(fingerprint):
            fingerprint = short_hash(section.fingerprint)
        stem = f"{name}-{fingerprint}"
        names = chain([stem], (f"{stem}-{place}" for place in count(2)))
        found.append(next(name for name in names if name not in found))
    return found


def draw(section: Section, wanted: Wanted, folder: Path, stem: str) -> dict[str, Path]:
    """Write the plots of a data set as PNG into ``folder``; those of an earlier report that no longer apply are removed.

    Args:
        section: the data set.
        wanted: what is asked for.
        folder: where.
        stem: how the files' names begin, see :func:`stems`.

    Returns:
        The files by what they show.
    """
    written = {}
    for name, make in PLOTS.items():
        path = folder / f"{stem}-{name}.png"
        path.unlink(missing_ok=True)
        with extra(f"the plot {path.name} is"):
            figure = make(section, wanted)
            if figure is not None:
                save_figure(figure, path)
                written[name.replace("_", " ")] = path
    return written
