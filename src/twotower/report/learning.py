"""Learning curves: validation by epoch, a line for each variant, a band over its seeds."""

from pathlib import Path

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twotower.files import open_ordinary
from twotower.plotting import BLACK, COLOURS, GREY, band, frame, new_figure, short
from twotower.report.section import Section
from twotower.report.text import metric_name
from twotower.report.variants import Variant, on_common_seeds
from twotower.run.run_folder import RunFolder


def learning(section: Section) -> Figure | None:
    """The baseline and the best variants; None if no run has validated more than once."""
    metric = section.options.metric
    known = [own for variant in section.variants if (own := _with_curves(variant, metric))]
    if not known:
        return None
    shown, note = on_common_seeds(known[: len(COLOURS) + 1])
    figure = new_figure(9, 4.8)
    axis = figure.subplots()
    colours = iter(COLOURS)
    for variant in shown:
        colour = BLACK if variant.label == section.baseline.label else next(colours, GREY)
        curves = [read_curve(run.folder, metric) for run in variant.runs]
        for curve in curves:
            axis.plot(list(curve), list(curve.values()), color=colour, linewidth=0.8, alpha=0.35)
        epochs = sorted(set.intersection(*map(set, curves)))
        values = [[curve[epoch] for curve in curves] for epoch in epochs]
        band(axis, epochs, values, colour, short(variant.label))
    frame(axis, f"{section.name}: validation {metric_name(metric)}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    num_hidden = len(known) - len(shown)
    hidden = f" (the best variants; {num_hidden} more are not shown)" if num_hidden else ""
    axis.set_xlabel(f"epoch{hidden}")
    title = f"mean over the epochs of all seeds\n{note}".strip()
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9, title=title)
    legend.get_title().set_fontsize(8)
    return figure


def _with_curves(variant: Variant, metric: str) -> Variant | None:
    """The variant with the runs that have validated more than once; None if there are none."""
    runs = tuple(run for run in variant.runs if len(read_curve(run.folder, metric)) > 1)
    return variant._replace(runs=runs) if runs else None


def read_curve(folder: Path, metric: str) -> dict[int, float]:
    """Validation values by epoch, from 1, in ``metrics.csv``; empty without them."""
    name = f"val/{metric}"
    try:
        with open_ordinary(RunFolder(folder).log) as file:
            log = pl.read_csv(file, infer_schema_length=None)
        rows = log.select(pl.col("epoch").cast(int) + 1, pl.col(name).cast(float)).drop_nulls()
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return {}  # no log, a damaged one, or a run without validation
    return dict(rows.rows())
