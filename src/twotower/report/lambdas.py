"""The loss weights λ: curves where one varies alone, heat maps where two make a grid."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.plotting import BLACK, COLOURS, GREY, frame, new_figure, short
from twotower.report.compared import Shared, shared
from twotower.report.section import Row, Section, Wanted, mean_over, metric_by_seed
from twotower.report.text import metric_name, number

Axis = tuple[str, ...]  # names of settings that hold one weight

KEYS: dict[str, Axis] = {"λ1": ("loss.lambda1",), "λ2": ("loss.lambda2",), "λ3": ("loss.lambda3",)}
TIED: dict[str, Axis] = {"λ1 = λ2": ("loss.lambda1", "loss.lambda2"), "λ3": ("loss.lambda3",)}
MIN_POINTS = 3  # of a curve
MIN_SIDE = 2  # of a grid
WIDE = 20  # a ratio of weights from which on they are spread by their logarithm


def curves(section: Section, wanted: Wanted) -> Figure | None:
    """A panel for each weight that takes at least three values while all else is equal; None where none does."""
    found = {}
    for name, keys in _axes(section).items():
        rows = _largest_group(section, [keys])
        if len(rows) >= MIN_POINTS:
            found[name] = sorted(rows, key=lambda row: _weight(row, keys))
    if not found:
        return None
    figure = new_figure(4.2 * len(found) + 0.8, 4.2)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for panel, colour, (name, rows) in zip(panels, COLOURS, found.items(), strict=False):
        _curve(panel, rows, _axes(section)[name], colour, section, wanted)
        frame(panel, f"{name}{_others(rows[0], section, name)}")
        note = _shared(rows, section).note
        panel.set_xlabel(f"{name}\n{note}" if note else name)
    panels[0].set_ylabel(f"test {metric_name(wanted.metric)}")
    figure.suptitle(
        f"{section.name}: one weight varied alone; band: ± standard deviation over seeds",
        fontsize=10,
        color=BLACK,
    )
    return figure


def heat_map(section: Section, wanted: Wanted) -> Figure | None:
    """Two weights that make a grid while all else is equal: the pair with most cells; None where none does."""
    axes = _axes(section)
    names = [name for name in ("λ1 = λ2", "λ1", "λ2") if name in axes]
    pairs = [(name, "λ3") for name in names] + ([("λ1", "λ2")] if "λ1" in axes else [])
    grids = {pair: _largest_group(section, [axes[name] for name in pair]) for pair in pairs}
    grids = {
        pair: rows for pair, rows in grids.items() if _is_grid(rows, [axes[name] for name in pair])
    }
    if not grids:
        return None
    (first, second), rows = max(grids.items(), key=lambda entry: len(entry[1]))
    return _draw(rows, (first, axes[first]), (second, axes[second]), section, wanted)


def _axes(section: Section) -> dict[str, Axis]:
    """λ1 and λ2 are one weight where they are always equal."""
    rows = [row for row in section.rows if "loss.lambda1" in row.variant.settings]
    tied = all(
        row.variant.settings["loss.lambda1"] == row.variant.settings.get("loss.lambda2")
        for row in rows
    )
    return TIED if tied else KEYS


def _weight(row: Row, keys: Axis) -> float:
    return float(row.variant.settings[keys[0]])


def _largest_group(section: Section, varied: list[Axis]) -> list[Row]:
    """The most variants that agree in everything but the settings ``varied``; of equally many, those of the best one."""
    free = {key for keys in varied for key in keys}
    groups: dict[Any, list[Row]] = {}
    for row in section.rows:
        settings = row.variant.settings
        if _has(row, tuple(free)):
            rest = frozenset((key, value) for key, value in settings.items() if key not in free)
            groups.setdefault(rest, []).append(row)

    def best(rows: list[Row]) -> Any:
        return len(rows), max(next(iter(row.values.values()))[0] for row in rows)

    return max(groups.values(), key=best, default=[])


def _is_grid(rows: list[Row], varied: list[Axis]) -> bool:
    sides = [len({_weight(row, keys) for row in rows}) for keys in varied]
    return min(sides) >= MIN_SIDE and len(rows) > sum(sides) - 1  # more than a cross


def _curve(
    axis: Axes, rows: list[Row], keys: Axis, colour: str, section: Section, wanted: Wanted
) -> None:
    weight = [_weight(row, keys) for row in rows]
    values = {row.variant.label: _values(row, rows, section, wanted.metric) for row in rows}
    mean = np.array([np.mean(found) for found in values.values()])
    spread = np.array([np.std(found, ddof=1) if len(found) > 1 else 0 for found in values.values()])
    axis.fill_between(weight, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    axis.plot(weight, mean, marker="o", color=colour, linewidth=2)
    for found, place in zip(values.values(), weight, strict=True):
        axis.plot([place] * len(found), found, ".", color=colour, alpha=0.5, markersize=4)
    if section.rows[0] not in rows:
        level = float(np.mean(_values(section.rows[0], rows, section, wanted.metric)))
        axis.axhline(
            level,
            color=GREY,
            linestyle="--",
            linewidth=1.2,
            label=short(section.baseline.label, 24),
        )
        axis.legend(frameon=False, fontsize=8, loc="best")
    positive = [value for value in weight if value > 0]
    if positive and max(positive) / min(positive) > WIDE:
        axis.set_xscale("symlog", linthresh=min(positive))
        axis.set_xticks(weight, [f"{value:g}" for value in weight])
        axis.set_xticks([], minor=True)


def _shared(rows: list[Row], section: Section) -> Shared:
    """The seeds that the points of a plot are of, and the baseline's line beside them."""
    return shared(row.variant.seeds for row in [*rows, section.rows[0]])


def _values(row: Row, rows: list[Row], section: Section, metric: str) -> list[float]:
    """Test values of the runs that are shown."""
    by_seed = metric_by_seed(row.variant, metric)
    return [by_seed[seed] for seed in _shared(rows, section).of(row.variant.seeds)]


def _others(row: Row, section: Section, name: str) -> str:
    axes = {other: keys for other, keys in _axes(section).items() if other != name}
    known = [f"{other} = {_weight(row, keys):g}" for other, keys in axes.items() if _has(row, keys)]
    return f" at {', '.join(known)}" if known else ""


def _has(row: Row, keys: Axis) -> bool:
    return all(isinstance(row.variant.settings.get(key), (int, float)) for key in keys)


def _draw(
    rows: list[Row],
    across: tuple[str, Axis],
    up: tuple[str, Axis],
    section: Section,
    wanted: Wanted,
) -> Figure:
    columns = sorted({_weight(row, across[1]) for row in rows})
    lines = sorted({_weight(row, up[1]) for row in rows})
    cells = np.full((len(lines), len(columns)), np.nan)
    seeds = shared(row.variant.seeds for row in rows)
    for row in rows:
        line, column = lines.index(_weight(row, up[1])), columns.index(_weight(row, across[1]))
        cells[line, column] = mean_over(row.variant, wanted.metric, seeds.of(row.variant.seeds))
    figure = new_figure(2.6 + 0.95 * len(columns), 1.9 + 0.6 * len(lines))
    axis = figure.subplots()
    image = axis.imshow(cells, cmap="cividis", origin="lower", aspect="auto")
    axis.set_facecolor("#EEEEEE")
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (line, column), value in np.ndenumerate(cells):
        text = "no run" if np.isnan(value) else number(value)
        colour = GREY if np.isnan(value) else "white" if value < middle else "black"
        weight = "bold" if value == np.nanmax(cells) else "normal"
        axis.text(
            column,
            line,
            text,
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
            fontweight=weight,
        )
    axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axis.set_yticks(range(len(lines)), [f"{value:g}" for value in lines])
    axis.set(xlabel=across[0] + (f"\n{seeds.note}" if seeds.note else ""), ylabel=up[0])
    axis.set_title(
        f"{section.name}: test {metric_name(wanted.metric)}",
        loc="left",
        fontweight="bold",
        fontsize=11,
    )
    figure.colorbar(image, ax=axis, shrink=0.9, format="%.4f")
    return figure
