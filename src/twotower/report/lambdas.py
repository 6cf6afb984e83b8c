"""The loss weights λ: curves where one varies alone, a heat map where two make a grid."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.plotting import (
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
from twotower.report.text import metric_name, number
from twotower.report.variants import Variant, on_common_seeds
from twotower.run.settings import Value

SETTINGS = {"λ1": "loss.lambda1", "λ2": "loss.lambda2", "λ3": "loss.lambda3"}
MIN_POINTS = 3  # of a curve
MAX_COLUMNS = 7  # of a heat map as narrow as the other plots


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
    figure = new_figure(NARROW, 1.3 + 2.3 * len(groups))
    panels = figure.subplots(len(groups), 1, sharey=True, squeeze=False)[:, 0]
    for panel, ((name,), group) in zip(panels, groups.items(), strict=True):
        _curve(panel, sorted(group, key=lambda point: point.weights[name]), name, section)
    set_heading(figure, f"{short(section.name)}: one weight varied alone")
    legend_below(figure)
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
    metric = section.options.metric
    cells = np.full((len(rows), len(columns)), np.nan)
    for point, variant in zip(group, variants, strict=True):
        cell = rows.index(point.weights[up]), columns.index(point.weights[across])
        cells[cell] = variant.mean(metric)
    figure = new_figure(NARROW * max(1, len(columns) / MAX_COLUMNS), 1.6 + 0.45 * len(rows))
    axis = figure.subplots()
    frame(axis, f"{short(section.name)}: test {metric_name(metric)} by two weights")
    axis.grid(visible=False)
    image = axis.imshow(cells, cmap="cividis", origin="lower", aspect="auto")
    figure.colorbar(image, ax=axis, format="%.4f", label=f"test {metric_name(metric)}")
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


def _curve(axis: Axes, group: list[Point], name: str, section: Section) -> None:
    """Test values over the weights that were tried, at equal distances."""
    metric = section.options.metric
    own = [point.variant for point in group]
    (*variants, baseline), note = on_common_seeds([*own, section.baseline])
    values = [list(variant.values(metric).values()) for variant in variants]
    band(axis, range(len(group)), values, BLUE, "mean ± standard deviation over seeds")
    for place, found in enumerate(values):
        label = "" if place else "one seed"
        axis.plot([place] * len(found), found, ".", color=BLUE, alpha=0.5, ms=4, label=label)
    if section.baseline not in own:
        label = short(baseline.label)
        axis.axhline(baseline.mean(metric), color=GREY, ls="--", lw=1.2, label=label)
    axis.set_xticks(range(len(group)), [f"{point.weights[name]:g}" for point in group])
    fixed = [f"{key} = {value:g}" for key, value in group[0].weights.items() if key != name]
    frame(axis, f"{name} at {', '.join(fixed)}" if fixed else name)
    axis.set_xlabel(f"{name}\n{note}".strip())
    axis.set_ylabel(f"test {metric_name(metric)}")


def _write_cells(axis: Axes, cells: np.ndarray) -> None:
    """Write each number into its cell, the best one bold."""
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        text = "no run" if np.isnan(value) else number(value)
        colour = "white" if value < middle else "black"
        weight = "bold" if value == np.nanmax(cells) else "normal"
        centre: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
        axis.text(column, row, text, color=colour, fontweight=weight, **centre)
