"""Learning curves: validation by epoch, a line for each variant, a band over its seeds."""

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twotower.files import read_bytes
from twotower.plotting import BLACK, COLOURS, frame, new_figure, short
from twotower.report.compared import shared
from twotower.report.section import Section, Wanted
from twotower.report.text import metric_name
from twotower.report.variants import Variant
from twotower.run.records import is_number
from twotower.run.run_folder import RunFolder

Curve = dict[int, float]
MAX_BYTES = 256 << 20


def learning(section: Section, wanted: Wanted) -> Figure | None:
    """The baseline and the best variants; None where no run has validated more than once."""
    read = {row.variant.label: _curves(row.variant, wanted.metric) for row in section.rows}
    read = {label: found for label, found in read.items() if any(map(_has_course, found.values()))}
    if not read:
        return None
    shown = list(read)[: len(COLOURS) + 1]
    seeds = shared(read[label] for label in shown)
    curves = {label: [read[label][seed] for seed in seeds.of(read[label])] for label in shown}
    figure = new_figure(9, 4.8)
    axis = figure.subplots()
    colours = dict(
        zip((label for label in shown if label != section.baseline.label), COLOURS, strict=False)
    )
    for label in shown:
        colour = colours.get(label, BLACK)
        for curve in curves[label]:
            axis.plot(*_points(curve), color=colour, linewidth=0.8, alpha=0.35)
        epochs, mean, spread = _over_seeds(curves[label])
        axis.fill_between(
            epochs, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
        )
        axis.plot(
            epochs, mean, color=colour, linewidth=2, marker="o", markersize=3.5, label=short(label)
        )
    frame(axis, f"{section.name}: validation {metric_name(wanted.metric)}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left_out = len(read) - len(shown)
    axis.set_xlabel(
        "epoch" + (f" (the best variants; {left_out} more are not shown)" if left_out else "")
    )
    title = "mean over the epochs of all seeds" + (f"\n{seeds.note}" if seeds.note else "")
    figure.legend(
        loc="outside right upper", frameon=False, fontsize=9, title=title, title_fontsize=8
    )
    return figure


def read_curve(folder: Path, metric: str) -> Curve:
    """Validation values by epoch, from 1, as ``metrics.csv`` has them; empty where it has none."""
    try:
        text = read_bytes(RunFolder(folder).log, MAX_BYTES).decode()
        rows = [
            row for row in csv.DictReader(io.StringIO(text, newline="")) if row.get(f"val/{metric}")
        ]
        curve = {int(float(row["epoch"])) + 1: float(row[f"val/{metric}"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error):
        return {}  # a run without this log, or a damaged one
    return {epoch: value for epoch, value in curve.items() if is_number(epoch) and is_number(value)}


def _curves(variant: Variant, metric: str) -> dict[int, Curve]:
    """By seed, of the runs that have one."""
    found = {run.record["seed"]: read_curve(run.folder, metric) for run in variant.runs}
    return {seed: curve for seed, curve in found.items() if curve}


def _has_course(curve: Curve) -> bool:
    return len(curve) > 1


def _points(curve: Curve) -> tuple[list[int], list[float]]:
    return list(curve), list(curve.values())


def _over_seeds(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs that all seeds have reached, mean and spread there."""
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array(
        [[curve[epoch] for epoch in epochs] for curve in curves]
    )  # (num_seeds, num_epochs)
    spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(epochs))
    return np.array(epochs), values.mean(0), spread
