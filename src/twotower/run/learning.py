"""Learning curve of a run, from ``metrics.csv``: training loss and validation by epoch."""

from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from twotower.files import open_ordinary
from twotower.plotting import BLUE, GREY, ORANGE, frame, legend_below, new_figure, save_figure
from twotower.run.run_folder import RunFolder

MANY = 40  # points, which are not marked one by one
Points = list[tuple[float, float]]  # epochs trained, and a value


def draw(folder: RunFolder, record: dict[str, Any], metric: str) -> None:
    """Write ``plots/learning.png``, if training loss or validation was logged more than once.

    Args:
        folder: of the run.
        record: ``metrics.json``; its validation is that of the best epoch.
        metric: of the validation, such as ``ndcg@10``.
    """
    loss, validation = by_epoch(folder.path, "train/loss"), by_epoch(folder.path, f"val/{metric}")
    if max(len(loss), len(validation)) < 2:
        return
    figure = new_figure(9, 3.8)
    left, right = figure.subplots(1, 2, sharex=True)
    _line(left, loss, "training", "loss")
    _line(right, validation, "validation", metric)
    right.set_xlim(0, 1.04 * max(epoch for epoch, _ in [*loss, *validation]))
    if validation and metric in record["val"]:
        best = record["val"][metric]
        epoch, _ = min(validation, key=lambda point: abs(point[1] - best))
        right.axvline(epoch, color=GREY, linewidth=1, linestyle=":")
        right.plot(epoch, best, "D", color=ORANGE, markersize=8, label=f"best epoch: {epoch:.4g}")
    for name, label, style in (
        ("test", "its test value", "--"),
        ("popularity", "test value of popularity", ":"),
    ):
        value = (record.get(name) or {}).get(metric)
        if value is not None:
            right.axhline(value, color=GREY, linewidth=1.5, linestyle=style, label=label)
    legend_below(figure)
    folder.plots.mkdir(exist_ok=True)
    save_figure(figure, folder.plots / "learning.png")


def by_epoch(folder: Path, name: str) -> Points:
    """Logged values by the epochs trained, 0.5 is half of the first one; empty without them."""
    steps = [(epoch + 1, step + 1) for epoch, step in read_log(folder, "epoch", "step")]
    per_epoch = max((step / epoch for epoch, step in steps), default=1)  # an epoch may be cut short
    return [((step + 1) / per_epoch, value) for step, value in read_log(folder, "step", name)]


def read_log(folder: Path, *columns: str) -> list[tuple[float, ...]]:
    """Rows of ``metrics.csv`` that hold all ``columns``; none without a log or in a damaged one."""
    try:
        with open_ordinary(RunFolder(folder).log) as file:
            log = pl.read_csv(file, infer_schema_length=None)
        return log.select(pl.col(columns).cast(float)).drop_nulls().rows()
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return []


def _line(axis: Axes, points: Points, title: str, unit: str) -> None:
    style = ".-" if len(points) < MANY else "-"
    axis.plot([epoch for epoch, _ in points], [value for _, value in points], style, color=BLUE)
    frame(axis, title)
    axis.set(xlabel="epochs trained", ylabel=unit)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
