"""Learning curves: validation by epoch, a panel for each variant beside the baseline."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twotower.plotting import (
    BLACK,
    BLUE,
    GREY,
    NARROW,
    band,
    frame,
    legend_below,
    new_figure,
    set_heading,
    short,
)
from twotower.report.section import Section
from twotower.report.text import metric_name
from twotower.report.variants import Variant, on_common_seeds
from twotower.run.learning import read_log

MAX_PANELS = 8


def learning(section: Section) -> Figure | None:
    """The best variants; None if no run has validated more than once."""
    metric = section.options.metric
    known = [own for variant in section.variants if (own := _with_curves(variant, metric))]
    if not known:
        return None
    shown, note = on_common_seeds(known[: MAX_PANELS + 1])
    num_baselines = int(shown[0].label == section.baseline.label)
    panels = shown[num_baselines:] or shown
    bar = section.references.get("popularity", {}).get(metric)
    num_columns = min(2, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = new_figure(NARROW, 1.7 + 1.6 * num_rows)
    axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, variant in zip(axes, panels, strict=False):
        for baseline in shown[:num_baselines]:
            _draw(axis, baseline, metric, BLACK, f"{short(baseline.label)} (baseline)")
        if variant not in shown[:num_baselines]:
            _draw(axis, variant, metric, BLUE, "the variant named above the plot")
        if bar is not None:
            axis.axhline(bar, color=GREY, linestyle=":", linewidth=1.5, label="popularity, test")
        frame(axis, short(variant.label), size=9)
    for axis in axes[: len(panels)][-num_columns:]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("epoch")
    figure.supylabel(f"validation {metric_name(metric)}", fontsize=10)
    for axis in axes[len(panels) :]:
        axis.remove()
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    num_hidden = len(known) - len(shown)
    hidden = f"; the best variants, {num_hidden} more are not shown" if num_hidden else ""
    what = f"mean ± standard deviation over seeds\nuntil the first of them stops{hidden}"
    set_heading(figure, f"{short(section.name)}: {what}\n{note}".strip())
    legend_below(figure)
    return figure


def _draw(axis: Axes, variant: Variant, metric: str, colour: str, label: str) -> None:
    curves = [read_curve(run.folder, metric) for run in variant.runs]
    epochs = sorted(set.intersection(*map(set, curves)))
    band(axis, epochs, [[curve[epoch] for curve in curves] for epoch in epochs], colour, label)


def _with_curves(variant: Variant, metric: str) -> Variant | None:
    """The variant with the runs that have validated more than once; None if there are none."""
    runs = tuple(run for run in variant.runs if len(read_curve(run.folder, metric)) > 1)
    return variant._replace(runs=runs) if runs else None


def read_curve(folder: Path, metric: str) -> dict[int, float]:
    """Validation values by epoch, from 1, in ``metrics.csv``; empty without them."""
    rows = read_log(folder, "epoch", f"val/{metric}")
    return {int(epoch) + 1: value for epoch, value in rows}
