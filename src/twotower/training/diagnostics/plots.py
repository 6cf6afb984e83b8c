"""The diagnostics as plots: one file each, only those that apply."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from twotower.training.diagnostics.measure import Diagnosis
from twotower.training.diagnostics.measures import principal_axes
from twotower.wording import save_figure, short

# Okabe and Ito's palette: told apart by colour-blind eyes
BLUE, ORANGE, GREEN, PURPLE, GREY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#999999",
    "#333333",
)
# Paul Tol's muted palette, for categories; grey for the others
CATEGORY_COLOURS = (
    "#332288", "#CC6677", "#44AA99", "#DDCC77", "#88CCEE", "#AA4499", "#117733", "#882255", "#999933", "#333333",
)  # fmt: skip
REST = "#DADADA"
MAX_NAME = 24
COLOURS = {"user": BLUE, "item": ORANGE, "a_u": GREEN, "a_v": PURPLE}
LABELS = {"user": "pᵤ", "item": "pᵥ", "a_u": "aᵤ", "a_v": "aᵥ"}
SWAPS = {
    "intact": "as trained",
    "a_u_shuffled": "aᵤ shuffled over users",
    "a_u_mean": "aᵤ replaced by its mean",
    "a_v_shuffled": "aᵥ shuffled over items",
    "a_v_mean": "aᵥ replaced by its mean",
}


def draw(folder: Path, history: list[dict[str, float]], found: Diagnosis) -> None:
    """Write the plots into ``folder``.

    Args:
        folder: made if it is missing.
        history: values of each measured validation, with its ``epoch``.
        found: at the test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"vectors": _vectors(history, found.values)}
    if any(name.startswith("mimic") for name in found.values):
        figures["augmented"] = _augmented(history, found.values)
    if "covariance" in found.tables:
        figures["category_covariance"] = _covariance(found.tables["covariance"])
    if "plane" in found.tables:
        figures["item_vectors"] = _plane(found.tables["plane"])
    if "hit_rate" in found.tables:
        figures["category_hit_rate"] = _hit_rate(found.tables["hit_rate"])
    if found.tables.get("model"):
        figures["model"] = _own(found.tables["model"])
    for name, figure in figures.items():
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
        save_figure(figure, folder / f"{name}.png", dpi=120)


def _vectors(history: list[dict[str, float]], values: dict[str, float]) -> Figure:
    """How the tower outputs and the augmented vectors spread out."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    cosine, rank, zero = figure.subplots(1, 3)
    _course(cosine, history, values, "cosine", "mean cosine of two vectors")
    _course(rank, history, values, "effective_rank", "effective rank: directions in use")
    names = [name for name in COLOURS if f"zero_share/{name}" in values]
    shares = [values[f"zero_share/{name}"] for name in names]
    bars = zero.bar(
        [LABELS[name] for name in names], shares, color=[COLOURS[name] for name in names], width=0.6
    )
    zero.bar_label(bars, [f"{share:.1%}" for share in shares], padding=2)
    zero.set_ylim(0, max(0.05, 1.15 * max(shares)))
    zero.yaxis.set_major_formatter(PercentFormatter(1))
    zero.set_title("zero vectors at the test", loc="left", fontweight="bold")
    return figure


def _course(
    axis: Axes, history: list[dict[str, float]], values: dict[str, float], measure: str, title: str
) -> None:
    """One line over the validations for each kind of vector."""
    for name, colour in COLOURS.items():
        points = [
            (row["epoch"] + 1, row[f"{measure}/{name}"])
            for row in history
            if f"{measure}/{name}" in row
        ]
        if points:
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                color=colour,
                label=LABELS[name],
            )
        elif f"{measure}/{name}" in values:
            axis.axhline(values[f"{measure}/{name}"], color=colour, label=LABELS[name])
    low = min(
        (row[key] for row in [*history, values] for key in row if key.startswith(measure)),
        default=0,
    )
    axis.set_ylim(bottom=min(0, 1.1 * low))
    _epochs(axis, title)


def _epochs(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel("epochs trained")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)


def _augmented(history: list[dict[str, float]], values: dict[str, float]) -> Figure:
    """Do the augmented vectors mimic, and does the model use them?"""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    fit, use = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for name in ("a_u", "a_v"):
        for part, style in (("train", "-"), ("held_out", ":")):
            points = [
                (row["epoch"] + 1, row[key])
                for row in history
                if (key := f"mimic_r2/{part}/{name}") in row
            ]
            if points:
                label = (
                    f"{LABELS[name]}, {'trained pairs' if part == 'train' else 'held-out pairs'}"
                )
                fit.plot(
                    *zip(*points, strict=True),
                    style,
                    marker="o",
                    markersize=4,
                    color=COLOURS[name],
                    label=label,
                )
    fit.axhline(0, color=GREY, linewidth=1)
    fit.set_ylim(bottom=max(fit.get_ylim()[0], -1.5), top=1.02)
    fit.annotate(
        "one vector for everybody",
        (0, 0),
        (5, 3),
        ("axes fraction", "data"),
        "offset points",
        color=GREY,
    )
    _epochs(fit, "mimic error as R²: 1 is perfect")
    name = next(key.split("/")[0] for key in values if key.startswith("hit_rate@"))
    swaps = [swap for swap in SWAPS if f"{name}/{swap}" in values]
    scores = [values[f"{name}/{swap}"] for swap in swaps]
    bars = use.barh(
        [SWAPS[swap] for swap in swaps],
        scores,
        color=[BLACK if swap == "intact" else GREY for swap in swaps],
        height=0.6,
    )
    relative = [f"{score:.4f}" + ("" if swap == "intact" or not scores[0] else f"  ({score / scores[0] - 1:+.0%})")
                for swap, score in zip(swaps, scores, strict=True)]  # fmt: skip
    use.bar_label(bars, relative, padding=3)
    use.set_xlim(0, 1.25 * max(*scores, 1e-9))
    use.invert_yaxis()
    use.set_title(
        f"{name} on a sample of test users: no loss means no use", loc="left", fontweight="bold"
    )
    return figure


def _covariance(table: dict[str, Any]) -> Figure:
    """Heat map of the distances between the categories' covariances."""
    distance = np.array(table["distance"])
    num = len(distance)
    figure = Figure(figsize=(3.6 + 0.5 * num, 2.6 + 0.45 * num), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(distance, cmap="viridis_r")
    labels = [
        f"{short(name, MAX_NAME)} ({size:,})"
        for name, size in zip(table["names"], table["items"], strict=True)
    ]
    axis.set_xticks(
        range(num), [short(name, MAX_NAME) for name in table["names"]], rotation=45, ha="right"
    )
    axis.set_yticks(range(num), labels)
    digits = max(1, 1 - int(np.floor(np.log10(distance.max())))) if distance.max() > 0 else 1
    for (row, column), value in np.ndenumerate(distance):
        if row != column:
            dark = value > 0.5 * distance.max()
            axis.text(
                column,
                row,
                f"{value:.{digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else BLACK,
            )
    figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set_title(
        "‖Cᵢ − Cⱼ‖ of the items' vectors, by category (items)", loc="left", fontweight="bold"
    )
    return figure


def _plane(table: dict[str, Any]) -> Figure:
    """Items on their vectors' two principal axes, coloured by category, with each category's mean."""
    axes_place, share = principal_axes(table["vectors"])
    place, name = axes_place.numpy(), np.array(table["name"])
    name[name >= len(CATEGORY_COLOURS)] = -1
    figure = Figure(figsize=(6.5, 7), layout="constrained")
    axis = figure.subplots()
    size = float(np.clip(20_000 / len(name), 3, 22))
    order = np.argsort(
        name != -1, kind="stable"
    )  # grey lies below; the items are in no order of category
    colour = np.array([*CATEGORY_COLOURS, REST])[name[order]]
    x, y = place[order].T
    axis.scatter(x, y, c=colour, s=size, alpha=0.75, linewidths=0)
    shown = list(zip(CATEGORY_COLOURS, table["names"], strict=False))
    for index, (own, label) in enumerate(shown):
        if (name == index).any():
            centre = place[name == index].mean(0)
            label = f"{short(label, MAX_NAME)} ({(name == index).sum():,})"
            axis.scatter(
                centre[0],
                centre[1],
                c=own,
                s=130,
                marker="D",
                edgecolors="white",
                linewidths=1.6,
                zorder=3,
                label=label,
            )
    if (name == -1).any():
        axis.scatter([], [], c=REST, label=f"others ({(name == -1).sum():,})")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axis.set_title("item vectors by category (items; diamond: mean)", loc="left", fontweight="bold")
    axes = [
        f"principal axis {number}, {part:.0%} of the variance"
        for number, part in enumerate(share, 1)
    ]
    axis.set(
        xlabel=axes[0], ylabel=axes[1], xticks=[], yticks=[], aspect="equal", adjustable="datalim"
    )
    return figure


def _hit_rate(table: dict[str, Any]) -> Figure:
    """Hit rate of each category with its Wilson interval of 95 %."""
    targets, hits = (np.array(table[key], dtype=float) for key in ("targets", "hits"))
    rate, low, high = hits / targets, *wilson(hits, targets)
    figure = Figure(figsize=(8.5, 1.8 + 0.36 * len(rate)), layout="constrained")
    axis = figure.subplots()
    labels = [
        f"{short(name, MAX_NAME)} ({int(num):,})"
        for name, num in zip(table["names"], targets, strict=True)
    ]
    place = np.arange(len(rate))  # by name, two that are shortened to the same would be one bar
    error = {"ecolor": BLACK, "elinewidth": 1}
    axis.barh(place, rate, color=BLUE, height=0.6, xerr=[rate - low, high - rate], error_kw=error)
    axis.set_yticks(place, labels)
    overall = hits.sum() / targets.sum()
    axis.axvline(overall, color=ORANGE, linewidth=1.5, label=f"these together: {overall:.3f}")
    axis.set_xlim(0, max(1.05 * high.max(), 1e-3))
    axis.invert_yaxis()
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    axis.set_title(f"hit rate@{table['k']} by category (targets)", loc="left", fontweight="bold")
    axis.set_xlabel("with 95 % intervals")
    return figure


def wilson(hits: np.ndarray, num: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the 95 % interval of a share (Wilson, 1927): sound for few trials and for shares of 0 and 1."""
    z = 1.959964
    centre = (hits + z**2 / 2) / (num + z**2)
    half = z / (num + z**2) * np.sqrt(hits * (num - hits) / num + z**2 / 4)
    return np.clip(centre - half, 0, hits / num), np.clip(
        centre + half, hits / num, 1
    )  # not beyond by a rounding error


def _own(tables: dict[str, list[float]]) -> Figure:
    """What the model says of itself, one bar per entry."""
    figure = Figure(figsize=(4.5 * len(tables), 3.8), layout="constrained")
    for axis, (name, entries) in zip(
        np.atleast_1d(figure.subplots(1, len(tables))), tables.items(), strict=True
    ):
        axis.bar(range(len(entries)), entries, color=BLUE, width=0.6)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(name.replace("_", " "), loc="left", fontweight="bold")
    return figure
