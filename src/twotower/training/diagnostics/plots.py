"""Draws the diagnostics: one PNG file each, only those that apply to the model and the data."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import binomtest

from twotower.plotting import (
    BAR,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    legend_below,
    new_figure,
    save_figure,
    set_title,
    short,
)
from twotower.training.diagnostics.measure import Diagnosis
from twotower.training.diagnostics.measures import paired_change, principal_axes

Course = list[dict[str, float]]  # values of each measured validation, with its epoch

# Paul Tol's muted palette, for categories; light grey for the others
CATEGORY_COLOURS = (
    "#332288", "#CC6677", "#44AA99", "#DDCC77", "#88CCEE",
    "#AA4499", "#117733", "#882255", "#999933", "#333333",
)  # fmt: skip
REST = "#DADADA"
MAX_NAME = 24
ERROR = {"ecolor": BLACK, "elinewidth": 1}
VECTORS = {
    "user": ("pᵤ, user tower", BLUE),
    "item": ("pᵥ, item tower", ORANGE),
    "a_u": ("aᵤ, augmented user", GREEN),
    "a_v": ("aᵥ, augmented item", PURPLE),
}
SWAPS = {
    "a_u_shuffled": "aᵤ shuffled over users",
    "a_u_mean": "aᵤ replaced by its mean",
    "a_v_shuffled": "aᵥ shuffled over items",
    "a_v_mean": "aᵥ replaced by its mean",
}


def draw(folder: Path, course: Course, found: Diagnosis) -> None:
    """Write the plots into ``folder``, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(course, found).items():
        save_figure(figure, folder / f"{name}.png")


def figures(course: Course, found: Diagnosis) -> dict[str, Figure]:
    """The plots by name.

    Args:
        course: values of each measured validation, with its ``epoch``.
        found: measured at the test.
    """
    tables = found.tables
    drawn = {"vectors": _vectors(course, found)}
    if "swaps" in tables:
        drawn["augmented"] = _augmented(course, tables["swaps"])
    if "covariance" in tables:
        drawn["category_covariance"] = _covariance(tables["covariance"])
        drawn["item_vectors"] = _plane(tables["plane"])
    if "hit_rate" in tables:
        drawn["category_hit_rate"] = _hit_rate(tables["hit_rate"])
    if tables.get("model"):
        drawn["model"] = _own(tables["model"])
    return drawn


def _vectors(course: Course, found: Diagnosis) -> Figure:
    """How the tower outputs and the augmented vectors spread out; how many are zero, if any."""
    values = found.values
    zero = {
        name: values[f"zero_share/{name}"] for name in VECTORS if f"zero_share/{name}" in values
    }
    num_panels = 3 if any(zero.values()) else 2
    figure = new_figure(4.5 * num_panels, 4)
    panels = figure.subplots(1, num_panels)
    for axis, measure, title, unit in zip(
        panels,
        ("cosine", "effective_rank"),
        ("are all vectors alike?", "do they use all directions?"),
        ("mean cosine of two vectors", "effective rank, directions in use"),
        strict=False,
    ):
        for name, (label, colour) in VECTORS.items():
            key = f"{measure}/{name}"
            if not _line(axis, course, key, label, color=colour) and key in values:
                axis.axhline(values[key], color=colour, label=label)  # the model is not trained
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        _epochs(axis, title, unit)
    if any(zero.values()):
        _zero(panels[2], zero, found.tables["num_vectors"])
    legend_below(figure)
    return figure


def _zero(axis: Axes, share: dict[str, float], num: dict[str, int]) -> None:
    """Share of vectors that are zero, with Wilson intervals of 95 %."""
    labels, colours = zip(*(VECTORS[name] for name in share), strict=True)
    hits = [round(share[name] * num[name]) for name in share]
    error = _wilson(hits, [num[name] for name in share])
    names = [label.partition(",")[0] for label in labels]
    axis.bar(names, list(share.values()), color=colours, width=0.6, yerr=error, error_kw=ERROR)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_ylim(bottom=0)
    axis.set_ylabel("share of the vectors, with 95 % intervals")
    set_title(axis, "zero vectors at the test")


def _augmented(course: Course, swaps: dict[str, Any]) -> Figure:
    """How well the augmented vectors mimic, and what ranking loses without them."""
    figure = new_figure(10, 4)
    fit, use = figure.subplots(1, 2)
    for name in ("a_u", "a_v"):
        label, colour = VECTORS[name]
        for part, words, style in (("train", "trained", "-"), ("held_out", "held-out", ":")):
            key = f"mimic_r2/{part}/{name}"
            _line(fit, course, key, f"{label}, {words} pairs", color=colour, linestyle=style)
    fit.axhline(0, color=GREY, linewidth=1.5, ls="--", label="one vector for all users (items)")
    fit.set_yscale("symlog", linthresh=1)  # it begins far below 0
    fit.set_ylim(min(-1, 1.5 * fit.get_ylim()[0]), 1.1)
    fit.yaxis.set_major_formatter("{x:g}")
    _epochs(fit, "how well augmented vectors mimic", "mimic error as R²; 1 is perfect")

    names = [name for name in SWAPS if name in swaps["gained"]]
    ends = [
        paired_change(swaps["gained"][name], swaps["lost"][name], swaps["num_users"])
        for name in names
    ]
    change, low, high = np.array(ends).T
    place = np.arange(len(names))
    use.axvline(0, color=GREY, linewidth=1.5, linestyle="--")
    use.hlines(place, low, high, color=BLACK, **BAR)
    use.plot(change, place, "o", color=BLACK)
    use.set_yticks(place, [SWAPS[name] for name in names])
    use.set_ylim(len(names) - 0.5, -0.5)
    use.grid(axis="x", alpha=0.25)
    use.xaxis.set_major_locator(MaxNLocator(nbins=5))
    use.set_xlabel(
        f"Δ hit rate@{swaps['k']}, with 95 % intervals\n"
        f"as trained: {swaps['intact']:.4f} of {swaps['num_users']:,} test users"
    )
    set_title(use, "use in ranking: no loss means no use")
    legend_below(figure)
    return figure


def _wilson(hits: list[int], num: list[int]) -> np.ndarray:
    """``(2, len(hits))`` lengths below and above of the Wilson intervals of 95 %."""
    bounds = [
        binomtest(hit, each).proportion_ci(method="wilson")
        for hit, each in zip(hits, num, strict=True)
    ]
    low, high = np.array(bounds).T
    rate = np.array(hits) / np.array(num)
    return np.maximum([rate - low, high - rate], 0)  # not below 0 by a rounding error


def _line(axis: Axes, course: Course, key: str, label: str, **style: Any) -> bool:
    """Draw a value over the epochs; False if no validation has it."""
    points = [(row["epoch"] + 1, row[key]) for row in course if key in row]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label, **style)
    return bool(points)


def _epochs(axis: Axes, title: str, unit: str) -> None:
    set_title(axis, title)
    axis.set(xlabel="epochs trained", ylabel=unit)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)


def _covariance(table: dict[str, Any]) -> Figure:
    """Heat map of the distances between the categories' covariances."""
    distance = np.array(table["distance"])  # (num, num)
    num = len(distance)
    np.fill_diagonal(distance, np.nan)  # always 0, which would take a part of the colours
    least, largest = np.nanmin(distance), np.nanmax(distance)
    figure = new_figure(3.6 + 0.5 * num, 2.6 + 0.45 * num)
    axis = figure.subplots()
    axis.set_facecolor("#EEEEEE")
    image = axis.imshow(distance, cmap="viridis_r")
    names = [short(name, MAX_NAME) for name in table["names"]]
    axis.set_xticks(range(num), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(num), _counted(table["names"], table["items"]))
    digits = max(1, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 1
    for (row, column), value in np.ndenumerate(distance):
        if row != column:
            colour = "white" if value > (least + largest) / 2 else "black"
            text = f"{value:.{digits}f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, shrink=0.8, label="Frobenius distance ‖Cᵢ − Cⱼ‖")
    axis.set(xlabel="category", ylabel="category (items)")
    set_title(axis, "distance of the covariances of two categories' item vectors")
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
    legend_below(figure)
    axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axis.set_xlabel(f"principal axis 1, {share[0]:.0%} of the variance")
    axis.set_ylabel(f"principal axis 2, {share[1]:.0%} of the variance")
    set_title(axis, "item vectors by category (items; diamond: mean)")
    return figure


def _hit_rate(table: dict[str, Any]) -> Figure:
    """Hit rate of each category with its Wilson interval of 95 %."""
    targets, hits = np.array(table["targets"]), np.array(table["hits"])
    rate = hits / targets
    error = _wilson(table["hits"], table["targets"])
    figure = new_figure(8.5, 1.8 + 0.36 * len(rate))
    axis = figure.subplots()
    place = np.arange(len(rate))  # bars placed by name would merge names that are cut alike
    axis.barh(place, rate, color=BLUE, height=0.6, xerr=error, error_kw=ERROR)
    axis.set_yticks(place, _counted(table["names"], table["targets"]))
    overall = hits.sum() / targets.sum()
    axis.axvline(overall, color=ORANGE, linewidth=1.5, label=f"these together: {overall:.3f}")
    axis.set_xlim(0, max(1.05 * (rate + error[1]).max(), 1e-3))
    axis.invert_yaxis()
    set_title(axis, f"hit rate@{table['k']} by category (targets)")
    axis.set_xlabel(f"hit rate@{table['k']}, with 95 % intervals")
    legend_below(figure)
    return figure


def _own(tables: dict[str, list[float]]) -> Figure:
    """The vectors of the model's ``diagnose``, one bar per entry."""
    figure = new_figure(4.5 * len(tables), 3.8)
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axis, (name, entries) in zip(panels, tables.items(), strict=True):
        axis.bar(range(len(entries)), entries, color=BLUE, width=0.6)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="entry", ylabel=name.replace("_", " "))
        set_title(axis, name.replace("_", " "))
    return figure
