"""The data card as one page of plots."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, PercentFormatter

from twotower.data.card.findings import percent
from twotower.data.prepare.prepare import GROUPS
from twotower.data.splits import UNITS_PER_SECOND
from twotower.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, short
from twotower.wording import printable

PART_COLOURS = {"train": BLUE, "val": GREEN, "test": ORANGE}
GROUP_COLOURS = dict(zip(GROUPS, (BLUE, GREEN, ORANGE), strict=True))
NAMED_CATEGORIES = 20


def draw(figures: dict[str, Any], curves: dict[str, np.ndarray], times: dict[str, Any]) -> Figure:
    """Six plots: what was dropped, time, long tail, categories, histories, cold shares.

    Args:
        figures: of a card.
        curves: of the same card.
        times: the prepared data's histogram of time, empty without a clock.
    """
    figure = Figure(
        figsize=(16, 9.5), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15)
    )
    kept = figures["kept"]
    figure.suptitle(
        f"{figures['data']}: {kept['interactions']:,} interactions, {kept['users']:,} users, {kept['items']:,} items"
        + (f"\n{figures['note']}" if figures["note"] else ""),
        fontsize=15,
        parse_math=False,
    )
    axes = figure.subplots(2, 3).flatten()
    _drops(axes[0], figures)
    _time(axes[1], figures, times)
    _long_tail(axes[2], curves)
    _categories(axes[3], figures, curves)
    _histories(axes[4], figures, curves)
    _targets(axes[5], figures)
    for axis in axes:
        axis.set_title(axis.get_title(), loc="left", fontweight="bold")
        axis.set_title("")
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _drops(axis: Axes, figures: dict[str, Any]) -> None:
    """A waterfall from what the files hold to what is kept."""
    raw, kept = figures["raw"]["interactions"], figures["kept"]["interactions"]
    labels, starts, widths, colours = ["raw"], [0], [raw], [GREY]
    left = raw
    for reason, num in figures["dropped"].items():
        left -= num
        labels.append(reason)
        starts.append(left)
        widths.append(num)
        colours.append(ORANGE)
    labels, starts, widths, colours = (
        [*labels, "kept"],
        [*starts, 0],
        [*widths, kept],
        [*colours, BLUE],
    )
    place = np.arange(len(labels))
    axis.barh(place, widths, left=starts, color=colours, height=0.6)
    for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
        inside = start + width > 0.7 * raw  # the end of the bar is near the edge of the plot
        edge = start if inside and start > 0.3 * raw else start + width
        _label(
            axis,
            edge,
            row,
            f"{width:,}",
            raw,
            before=edge == start and start > 0,
            inside=inside and start == 0,
        )
    axis.set_yticks(place, [_wrapped(label, 26) for label in labels], parse_math=False)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(FuncFormatter(_short_number))
    axis.set(title="what is kept of the raw data", xlabel="interactions", xlim=(0, raw * 1.02))


def _label(
    axis: Axes, x: float, y: float, text: str, scale: float, before: bool, inside: bool
) -> None:
    """A number beside the end of a bar, or inside it where there is no room."""
    shift, side = (-0.01, "right") if before or inside else (0.01, "left")
    axis.text(x + shift * scale, y, text, va="center", ha=side, color="white" if inside else BLACK)


def _time(axis: Axes, figures: dict[str, Any], times: dict[str, Any]) -> None:
    """Interactions over time, the parts on top of one another; without a clock the parts side by side."""
    if not times:
        parts = figures["parts"]
        axis.bar(
            list(parts),
            [part["interactions"] for part in parts.values()],
            color=list(PART_COLOURS.values()),
            width=0.6,
        )
        axis.yaxis.set_major_formatter(FuncFormatter(_short_number))
        axis.set(title="parts (the data know order, no clock)", ylabel="interactions")
        return
    edges, baseline = _moments(times["edges"], times["unit"]), np.zeros(len(times["edges"]) - 1)
    for name, part in times["parts"].items():
        top = baseline + np.asarray(part["histogram"])
        axis.stairs(top, edges, baseline=baseline, fill=True, color=PART_COLOURS[name], label=name)
        baseline = top
    if times["unit"] in UNITS_PER_SECOND:
        axis.xaxis.set_major_locator(locator := AutoDateLocator())
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.yaxis.set_major_formatter(FuncFormatter(_short_number))
    axis.legend(frameon=False, loc="upper right", ncols=3)
    axis.set(title="interactions over time", ylabel=f"interactions per {_bin_width(times)}")
    axis.set_ylim(0, 1.2 * max(1, baseline.max()))  # room for the legend


def _moments(edges: list[float], unit: str) -> np.ndarray:
    """Edges as days, which date axes count in, or as the steps that they are."""
    return (
        np.asarray(edges) / (UNITS_PER_SECOND[unit] * 86_400)
        if unit in UNITS_PER_SECOND
        else np.asarray(edges)
    )


def _bin_width(times: dict[str, Any]) -> str:
    width = times["edges"][1] - times["edges"][0]
    if times["unit"] not in UNITS_PER_SECOND:
        return f"{width:,.3g} steps"
    seconds = width / UNITS_PER_SECOND[times["unit"]]
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {name}"
    return f"{seconds:.3g} seconds"


def _long_tail(axis: Axes, curves: dict[str, np.ndarray]) -> None:
    """Interactions by rank; a straight line is a power law."""
    for side, colour in (("item", BLUE), ("user", ORANGE)):
        falling = np.sort(curves[side])[::-1]
        rank = np.unique(np.geomspace(1, len(falling), 500).astype(int))
        axis.plot(rank, falling[rank - 1], color=colour, label=f"{side}s", linewidth=2)
    axis.legend(frameon=False)
    axis.set(
        title="long tail of training",
        xlabel="rank, most active first",
        ylabel="interactions",
        xscale="log",
        yscale="log",
    )


def _categories(axis: Axes, figures: dict[str, Any], curves: dict[str, np.ndarray]) -> None:
    """Training interactions of each category, largest first, coloured by group."""
    axis.set(title="categories in training")
    size, group, category = curves["category"], curves["category_group"], figures["categories"]
    if len(size) == 0:
        _say(axis, "no item has a category")
        return
    gap = 0.1 if len(size) <= NAMED_CATEGORIES else 0
    for row, name in enumerate(GROUPS):
        members = np.flatnonzero(group == row)
        if len(members):
            share = size[members].sum() / size.sum()
            label = f"{name}: {len(members):,} with {share:.0%} of interactions"
            axis.fill_between(
                *_outline(size, members, gap), color=GROUP_COLOURS[name], label=label, linewidth=0
            )
    axis.yaxis.set_major_formatter(FuncFormatter(_short_number))
    axis.legend(frameon=False, loc="upper right")
    axis.set(ylabel="interactions", ylim=(0, 1.35 * size.max()))  # room for the legend
    if len(size) <= NAMED_CATEGORIES:
        names = [_category(row["name"]) for row in category["top"]]
        axis.set_xticks(
            np.arange(len(size)), names, rotation=60, ha="right", rotation_mode="anchor"
        )
    else:
        axis.set(
            xlabel="rank, largest first", yscale="log", ylim=(max(0.8, size.min() * 0.8), None)
        )


def _outline(size: np.ndarray, members: np.ndarray, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Bars as one polygon: thousands of single bars take seconds to draw."""
    left, right = members - 0.5, members + 0.5 - gap
    height, none = size[members], np.zeros(len(members))
    return np.stack([left, left, right, right], 1).ravel(), np.stack(
        [none, height, height, none], 1
    ).ravel()


def _histories(axis: Axes, figures: dict[str, Any], curves: dict[str, np.ndarray]) -> None:
    """How many users have at most so much of a past when they are evaluated."""
    length = figures["history"]["length"]
    for part, style in (("val", "-"), ("test", "--")):
        ascending = np.sort(curves[f"history/{part}"])
        row = np.unique(np.linspace(0, len(ascending) - 1, 1_000).astype(int))
        axis.step(
            ascending[row],
            (row + 1) / len(ascending),
            style,
            color=PART_COLOURS[part],
            label=part,
            where="post",
            linewidth=2,
        )
    if length:
        height, align = (
            (0.03, "bottom") if figures["history"]["short"]["test"] > 0.5 else (0.97, "top")
        )  # where no curve is
        axis.axvline(length, color=BLACK, linewidth=1)
        axis.annotate(
            f"data.history_length={length}",
            (length, height),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va=align,
            fontsize=9,
            color=BLACK,
        )
    axis.legend(frameon=False, loc="best")
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_xscale("symlog", linthresh=1)
    axis.xaxis.set_major_formatter(FuncFormatter(_short_number))
    axis.set(
        title="known past of evaluated users",
        xlabel="earlier interactions, at most",
        ylabel="users",
        ylim=(0, 1.02),
    )
    axis.set_xlim(0, None)


def _targets(axis: Axes, figures: dict[str, Any]) -> None:
    """Of which groups the held-out items are, and how many are cold."""
    groups = (*GROUPS, "none") if figures["categories"]["num"] else ()
    labels = [
        *("no category" if name == "none" else name for name in groups),
        "cold item",
        "cold user",
    ]
    place = np.arange(len(labels))
    for shift, part in ((-0.2, "val"), (0.2, "test")):
        own = figures["parts"][part]
        shares = [
            *(own["groups"][name] for name in groups),
            own["cold_item_targets"],
            own["cold_user_targets"],
        ]
        bars = axis.barh(place + shift, shares, height=0.36, color=PART_COLOURS[part], label=part)
        axis.bar_label(bars, [percent(share) for share in shares], padding=4, fontsize=9)
    axis.set_yticks(place, labels)
    axis.invert_yaxis()
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.set(title="what the targets are", xlabel="share of targets")
    axis.set_xlim(0, max(0.01, axis.get_xlim()[1]) * 1.12)


def _say(axis: Axes, text: str) -> None:
    axis.text(
        0.5, 0.5, text, ha="center", va="center", color=GREY, fontsize=13, transform=axis.transAxes
    )
    axis.set(xticks=[], yticks=[])


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(printable(text), width)[:3])


def _category(name: str) -> str:
    """A category below its bar: two lines at most, as bars stand close."""
    return "\n".join(textwrap.wrap(short(name, 30), 16)[:2])


def _short_number(value: float, _: object = None) -> str:
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"
