"""Draws the diagnostics: one PNG file each, only those that apply to the model and the data."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import binomtest

from twotower.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    new_figure,
    save_figure,
    set_title,
    short,
)
from twotower.training.diagnostics.measure import Diagnosis
from twotower.training.diagnostics.measures import principal_axes

Course = list[dict[str, float]]  # values of each measured validation, with its epoch

# Paul Tol's muted palette, for categories; light grey for the others
CATEGORY_COLOURS = (
    "#332288", "#CC6677", "#44AA99", "#DDCC77", "#88CCEE",
    "#AA4499", "#117733", "#882255", "#999933", "#333333",
)  # fmt: skip
REST = "#DADADA"
MAX_NAME = 24
VECTORS = {
    "user": ("pᵤ", BLUE),
    "item": ("pᵥ", ORANGE),
    "a_u": ("aᵤ", GREEN),
    "a_v": ("aᵥ", PURPLE),
}
SWAPS = {
    "intact": "as trained",
    "a_u_shuffled": "aᵤ shuffled over users",
    "a_u_mean": "aᵤ replaced by its mean",
    "a_v_shuffled": "aᵥ shuffled over items",
    "a_v_mean": "aᵥ replaced by its mean",
}


def draw(folder: Path, course: Course, found: Diagnosis) -> None:
    """Write the plots into ``folder``.

    Args:
        folder: made if it is missing.
        course: values of each measured validation, with its ``epoch``.
        found: measured at the test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = found.tables
    figures = {"vectors": _vectors(course, found.values)}
    if any(name.startswith("mimic") for name in found.values):
        figures["augmented"] = _augmented(course, found.values)
    if "covariance" in tables:
        figures["category_covariance"] = _covariance(tables["covariance"])
        figures["item_vectors"] = _plane(tables["plane"])
    if "hit_rate" in tables:
        figures["category_hit_rate"] = _hit_rate(tables["hit_rate"])
    if tables.get("model"):
        figures["model"] = _own(tables["model"])
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")


def _vectors(course: Course, values: dict[str, float]) -> Figure:
    """How the tower outputs and the augmented vectors spread out."""
    figure = new_figure(13, 4.2)
    cosine, rank, zero = figure.subplots(1, 3)
    for axis, measure, title in (
        (cosine, "cosine", "mean cosine of two vectors"),
        (rank, "effective_rank", "effective rank: directions in use"),
    ):
        for name, (label, colour) in VECTORS.items():
            key = f"{measure}/{name}"
            if not _line(axis, course, key, label, color=colour) and key in values:
                axis.axhline(values[key], color=colour, label=label)  # the model is not trained
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        _epochs(axis, title)
    names = [name for name in VECTORS if f"zero_share/{name}" in values]
    shares = [values[f"zero_share/{name}"] for name in names]
    labels, colours = zip(*(VECTORS[name] for name in names), strict=True)
    bars = zero.bar(labels, shares, color=colours, width=0.6)
    zero.bar_label(bars, [f"{share:.1%}" for share in shares], padding=2)
    zero.set_ylim(0, max(0.05, 1.15 * max(shares)))
    zero.yaxis.set_major_formatter(PercentFormatter(1))
    set_title(zero, "zero vectors at the test")
    return figure


def _augmented(course: Course, values: dict[str, float]) -> Figure:
    """How well the augmented vectors mimic, and what ranking loses without them."""
    figure = new_figure(13, 4.2)
    fit, use = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for name in ("a_u", "a_v"):
        label, colour = VECTORS[name]
        for part, words, style in (("train", "trained", "-"), ("held_out", "held-out", ":")):
            key = f"mimic_r2/{part}/{name}"
            _line(fit, course, key, f"{label}, {words} pairs", color=colour, linestyle=style)
    fit.axhline(0, color=GREY, linewidth=1)
    fit.set_ylim(bottom=max(fit.get_ylim()[0], -1.5), top=1.02)
    one = {"color": GREY, "va": "bottom", "transform": fit.get_yaxis_transform()}
    fit.text(0.01, 0, "one vector for everybody", **one)
    _epochs(fit, "mimic error as R²: 1 is perfect")

    metric = next(key.split("/")[0] for key in values if key.startswith("hit_rate@"))
    swaps = [swap for swap in SWAPS if f"{metric}/{swap}" in values]
    scores = [values[f"{metric}/{swap}"] for swap in swaps]
    colours = [BLACK if swap == "intact" else GREY for swap in swaps]
    bars = use.barh([SWAPS[swap] for swap in swaps], scores, color=colours, height=0.6)
    use.bar_label(bars, _with_changes(scores), padding=3)
    use.set_xlim(0, 1.25 * max(*scores, 1e-9))
    use.invert_yaxis()
    set_title(use, f"{metric} on a sample of test users: no loss means no use")
    return figure


def _line(axis: Axes, course: Course, key: str, label: str, **style: Any) -> bool:
    """Draw a value over the epochs; False if no validation has it."""
    points = [(row["epoch"] + 1, row[key]) for row in course if key in row]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label, **style)
    return bool(points)


def _epochs(axis: Axes, title: str) -> None:
    set_title(axis, title)
    axis.set_xlabel("epochs trained")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)


def _with_changes(scores: list[float]) -> list[str]:
    """Each score, and how much more or less it is than the first."""
    shown = [f"{scores[0]:.4f}"]
    for score in scores[1:]:
        change = f"  ({score / scores[0] - 1:+.0%})" if scores[0] else ""
        shown.append(f"{score:.4f}{change}")
    return shown


def _covariance(table: dict[str, Any]) -> Figure:
    """Heat map of the distances between the categories' covariances."""
    distance = np.array(table["distance"])  # (num, num)
    largest, num = distance.max(), len(distance)
    figure = new_figure(3.6 + 0.5 * num, 2.6 + 0.45 * num)
    axis = figure.subplots()
    image = axis.imshow(distance, cmap="viridis_r")
    names = [short(name, MAX_NAME) for name in table["names"]]
    axis.set_xticks(range(num), names, rotation=45, ha="right")
    axis.set_yticks(range(num), _counted(table["names"], table["items"]))
    digits = max(1, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 1
    for (row, column), value in np.ndenumerate(distance):
        if row != column:
            colour = "white" if value > 0.5 * largest else BLACK
            text = f"{value:.{digits}f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, shrink=0.8)
    set_title(axis, "‖Cᵢ − Cⱼ‖ of the items' vectors, by category (items)")
    return figure


def _counted(names: list[str], counts: list[int]) -> list[str]:
    return [
        f"{short(name, MAX_NAME)} ({count:,})" for name, count in zip(names, counts, strict=True)
    ]


def _plane(table: dict[str, Any]) -> Figure:
    """Items on their vectors' two principal axes, coloured by category, with category means."""
    place, share = principal_axes(table["vectors"])
    x, y = place.numpy().T
    category = np.array(table["category"])  # (num_items,) index of its name, -1 is another one
    category[category >= len(CATEGORY_COLOURS)] = -1
    figure = new_figure(6.5, 7)
    axis = figure.subplots()
    order = np.argsort(category != -1, kind="stable")  # grey points first, below the others
    colours = np.array([*CATEGORY_COLOURS, REST])[category]
    size = float(np.clip(20_000 / len(category), 3, 22))
    axis.scatter(x[order], y[order], c=colours[order], s=size, alpha=0.75, linewidths=0)
    mean: dict[str, Any] = {
        "s": 130,
        "marker": "D",
        "edgecolors": "white",
        "linewidths": 1.6,
        "zorder": 3,
    }
    counts = [int((category == index).sum()) for index in range(len(table["names"]))]
    labels = _counted(table["names"], counts)
    for index, (colour, label) in enumerate(zip(CATEGORY_COLOURS, labels, strict=False)):
        own = category == index
        if own.any():
            axis.scatter(x[own].mean(), y[own].mean(), c=colour, label=label, **mean)
    if (category == -1).any():
        axis.scatter([], [], c=REST, label=f"others ({(category == -1).sum():,})")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axis.set_xlabel(f"principal axis 1, {share[0]:.0%} of the variance")
    axis.set_ylabel(f"principal axis 2, {share[1]:.0%} of the variance")
    set_title(axis, "item vectors by category (items; diamond: mean)")
    return figure


def _hit_rate(table: dict[str, Any]) -> Figure:
    """Hit rate of each category with its Wilson interval of 95 %."""
    targets, hits = np.array(table["targets"]), np.array(table["hits"])
    rate = hits / targets
    bounds = [
        binomtest(hit, num).proportion_ci(method="wilson")
        for hit, num in zip(table["hits"], table["targets"], strict=True)
    ]
    low, high = np.array(bounds).T
    error = np.maximum([rate - low, high - rate], 0)  # not below 0 by a rounding error
    figure = new_figure(8.5, 1.8 + 0.36 * len(rate))
    axis = figure.subplots()
    place = np.arange(len(rate))  # bars placed by name would merge names that are cut alike
    lines = {"ecolor": BLACK, "elinewidth": 1}
    axis.barh(place, rate, color=BLUE, height=0.6, xerr=error, error_kw=lines)
    axis.set_yticks(place, _counted(table["names"], table["targets"]))
    overall = hits.sum() / targets.sum()
    axis.axvline(overall, color=ORANGE, linewidth=1.5, label=f"these together: {overall:.3f}")
    axis.set_xlim(0, max(1.05 * high.max(), 1e-3))
    axis.invert_yaxis()
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    set_title(axis, f"hit rate@{table['k']} by category (targets)")
    axis.set_xlabel("with 95 % intervals")
    return figure


def _own(tables: dict[str, list[float]]) -> Figure:
    """The vectors of the model's ``diagnose``, one bar per entry."""
    figure = new_figure(4.5 * len(tables), 3.8)
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axis, (name, entries) in zip(panels, tables.items(), strict=True):
        axis.bar(range(len(entries)), entries, color=BLUE, width=0.6)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        set_title(axis, name.replace("_", " "))
    return figure
