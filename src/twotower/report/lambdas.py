"""The loss weights λ: curves where one varies alone, a heat map where two make a grid."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.plotting import COLOURS, GREY, band, frame, new_figure, short
from twotower.report.section import Section
from twotower.report.text import metric_name, number
from twotower.report.variants import Variant, on_common_seeds
from twotower.run.settings import Value

SETTINGS = {"λ1": "loss.lambda1", "λ2": "loss.lambda2", "λ3": "loss.lambda3"}
MIN_POINTS = 3  # of a curve
WIDE = 20  # a logarithmic axis if the largest weight is more times the smallest


class Point(NamedTuple):
    """A variant with its loss weights by name, and all its other settings."""

    variant: Variant
    weights: dict[str, float]
    others: frozenset[tuple[str, Value]]


def curves(section: Section) -> Figure | None:
    """A panel for each weight with at least three values while all else is equal."""
    groups = _largest_groups(section, 1)
    groups = {names: group for names, group in groups.items() if len(group) >= MIN_POINTS}
    if not groups:
        return None
    figure = new_figure(4.2 * len(groups) + 0.8, 4.2)
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, colour, ((name,), group) in zip(panels, COLOURS, groups.items(), strict=False):
        _curve(panel, sorted(group, key=lambda point: point.weights[name]), name, colour, section)
    panels[0].set_ylabel(f"test {metric_name(section.options.metric)}")
    what = "one weight varied alone\nband: ± standard deviation over seeds"
    figure.suptitle(f"{section.name}: {what}", fontsize=10)
    return figure


def heat_map(section: Section) -> Figure | None:
    """The two weights that make the largest grid while all else is equal."""
    grids = _largest_groups(section, 2)
    grids = {pair: group for pair, group in grids.items() if _is_grid(group, pair)}
    if not grids:
        return None
    (across, up), group = max(grids.items(), key=lambda grid: len(grid[1]))
    variants, note = on_common_seeds([point.variant for point in group])
    columns = sorted({point.weights[across] for point in group})
    rows = sorted({point.weights[up] for point in group})
    cells = np.full((len(rows), len(columns)), np.nan)
    for point, variant in zip(group, variants, strict=True):
        cell = rows.index(point.weights[up]), columns.index(point.weights[across])
        cells[cell] = variant.mean(section.options.metric)
    figure = new_figure(2.6 + 0.95 * len(columns), 1.9 + 0.6 * len(rows))
    axis = figure.subplots()
    frame(axis, f"{section.name}: test {metric_name(section.options.metric)}")
    axis.grid(visible=False)
    image = axis.imshow(cells, cmap="cividis", origin="lower", aspect="auto")
    figure.colorbar(image, ax=axis, shrink=0.9, format="%.4f")
    axis.set_facecolor("#EEEEEE")
    _write_cells(axis, cells)
    axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axis.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axis.set(xlabel=f"{across}\n{note}".strip(), ylabel=up)
    return figure


def _points(section: Section) -> list[Point]:
    """The variants, best first; λ1 and λ2 are one weight if they are always equal."""
    settings = [variant.settings for variant in section.variants]
    if all(own.get("loss.lambda1") == own.get("loss.lambda2") for own in settings):
        names = {"λ1 = λ2": "loss.lambda1", "λ3": "loss.lambda3"}
    else:
        names = SETTINGS
    points = []
    for variant, own in zip(section.variants, settings, strict=True):
        weights = {name: float(own[key] or 0) for name, key in names.items() if key in own}
        others = {pair for pair in own.items() if pair[0] not in SETTINGS.values()}
        points.append(Point(variant, weights, frozenset(others)))
    return sorted(points, key=lambda point: -point.variant.mean(section.options.metric))


def _largest_groups(section: Section, num_varied: int) -> dict[tuple[str, ...], list[Point]]:
    """For each choice of weights the most variants that are equal in everything else.

    Of several such groups, the one with the best variant.
    """
    points = _points(section)
    names = dict.fromkeys(name for point in points for name in point.weights)
    largest = {}
    for varied in combinations(names, num_varied):
        groups: dict[tuple[object, ...], list[Point]] = {}
        for point in points:
            if point.weights.keys() >= set(varied):
                fixed = {pair for pair in point.weights.items() if pair[0] not in varied}
                groups.setdefault((point.others, frozenset(fixed)), []).append(point)
        largest[varied] = max(groups.values(), key=len)
    return largest


def _is_grid(group: list[Point], pair: tuple[str, ...]) -> bool:
    """Whether both weights vary, in more points than a cross has."""
    sides = [len({point.weights[name] for point in group}) for name in pair]
    return min(sides) >= 2 and len(group) > sum(sides) - 1


def _curve(axis: Axes, group: list[Point], name: str, colour: str, section: Section) -> None:
    metric = section.options.metric
    own = [point.variant for point in group]
    (*variants, baseline), note = on_common_seeds([*own, section.baseline])
    weights = [point.weights[name] for point in group]
    values = [list(variant.values(metric).values()) for variant in variants]
    band(axis, weights, values, colour)
    for weight, found in zip(weights, values, strict=True):
        axis.plot([weight] * len(found), found, ".", color=colour, alpha=0.5, markersize=4)
    if section.baseline not in own:
        label = short(baseline.label, 24)
        axis.axhline(baseline.mean(metric), color=GREY, ls="--", lw=1.2, label=label)
        axis.legend(frameon=False, fontsize=8, loc="best")
    positive = [weight for weight in weights if weight > 0]
    if positive and max(positive) / min(positive) > WIDE:
        axis.set_xscale("symlog", linthresh=min(positive))
        axis.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axis.set_xticks([], minor=True)
    fixed = [f"{key} = {value:g}" for key, value in group[0].weights.items() if key != name]
    frame(axis, f"{name} at {', '.join(fixed)}" if fixed else name)
    axis.set_xlabel(f"{name}\n{note}".strip())


def _write_cells(axis: Axes, cells: np.ndarray) -> None:
    """Write each number into its cell, the best one bold."""
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        text = "no run" if np.isnan(value) else number(value)
        colour = "white" if value < middle else "black"
        weight = "bold" if value == np.nanmax(cells) else "normal"
        centre: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
        axis.text(column, row, text, color=colour, fontweight=weight, **centre)
