"""The data card as one page of plots."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, PercentFormatter

from twotower.data.card.findings import percent
from twotower.data.prepare.options import GROUPS
from twotower.data.splits import UNITS_PER_SECOND
from twotower.plotting import BLUE, GREEN, GREY, ORANGE
from twotower.wording import clip, duration, printable

PART_COLOURS = {"train": BLUE, "val": GREEN, "test": ORANGE}
GROUP_COLOURS = dict(zip(GROUPS, (BLUE, GREEN, ORANGE), strict=True))
NAMED_CATEGORIES = 20
LEGEND = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "ncols": 3}
TIGHT = {"borderpad": 0, "borderaxespad": 0.3, "columnspacing": 1, "handlelength": 1.5}
COUNTS = EngFormatter(sep="")  # 12k, 3M


def draw(figures: dict[str, Any], curves: dict[str, np.ndarray], times: dict[str, Any]) -> Figure:
    """Six plots: what was dropped, time, long tail, categories, histories, cold shares.

    Args:
        figures: of a card.
        curves: of the same card.
        times: the prepared data's histogram of time, empty without a clock.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15)
    figure = Figure(figsize=(16, 9.5), dpi=110, layout=layout)
    num, users, items = (figures["kept"][key] for key in ("interactions", "users", "items"))
    title = f"{figures['data']}: {num:,} interactions, {users:,} users, {items:,} items"
    figure.suptitle(f"{title}\n{figures['note']}".strip(), fontsize=15, parse_math=False)
    axes = figure.subplots(2, 3).flatten()
    _drops(axes[0], figures)
    _time(axes[1], figures, times)
    _long_tail(axes[2], curves)
    _categories(axes[3], figures, curves)
    _histories(axes[4], figures, curves)
    _targets(axes[5], figures)
    for axis in axes:
        title = axis.get_title()
        axis.set_title("")
        axis.set_title(title, loc="left", fontweight="bold", pad=24)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(**LEGEND, **TIGHT)  # between the title and the plot, which it cannot hide
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _drops(axis: Axes, figures: dict[str, Any]) -> None:
    """A waterfall from the raw data to what is kept."""
    raw, kept = figures["raw"]["interactions"], figures["kept"]["interactions"]
    bars = [("raw", 0, raw, GREY)]
    left = raw
    for reason, num in figures["dropped"].items():
        left -= num
        bars.append((reason, left, num, ORANGE))
    bars.append(("kept", 0, kept, BLUE))
    labels, starts, widths, colours = zip(*bars, strict=True)
    axis.barh(range(len(bars)), widths, left=starts, color=colours, height=0.6)
    names = [f"{_wrapped(label)}\n{width:,}" for label, width in zip(labels, widths, strict=True)]
    axis.set_yticks(range(len(bars)), names, parse_math=False)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(COUNTS)
    axis.set(title="what is kept of the raw data", xlabel="interactions", xlim=(0, raw * 1.02))


def _time(axis: Axes, figures: dict[str, Any], times: dict[str, Any]) -> None:
    """Interactions over time, the parts stacked; without a clock the size of each part."""
    axis.yaxis.set_major_formatter(COUNTS)
    if not times:
        sizes = [part["interactions"] for part in figures["parts"].values()]
        axis.bar(list(PART_COLOURS), sizes, color=list(PART_COLOURS.values()), width=0.6)
        axis.set(title="parts (the data know order, no clock)", ylabel="interactions")
        return
    edges = np.asarray(times["edges"])
    if times["unit"] in UNITS_PER_SECOND:
        edges = edges / (UNITS_PER_SECOND[times["unit"]] * 86_400)  # matplotlib counts in days
        locator = AutoDateLocator(maxticks=6)  # more dates would lie on one another
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        unit, step = "date", duration((edges[1] - edges[0]) * 86_400)
    else:
        unit, step = "time, as in the data", f"{edges[1] - edges[0]:,.4g}"
    baseline = np.zeros(len(edges) - 1)
    for name, part in times["parts"].items():
        top = baseline + np.asarray(part["histogram"])
        axis.stairs(top, edges, baseline=baseline, fill=True, color=PART_COLOURS[name], label=name)
        baseline = top
    axis.set(title="interactions over time", xlabel=unit, ylim=(0, None))
    axis.set_ylabel(f"interactions per {step}")


def _long_tail(axis: Axes, curves: dict[str, np.ndarray]) -> None:
    """Interactions by rank; a straight line is a power law."""
    for side, colour in (("item", BLUE), ("user", ORANGE)):
        falling = np.sort(curves[side])[::-1]
        rank = np.unique(np.geomspace(1, len(falling), 500).astype(int))
        axis.plot(rank, falling[rank - 1], color=colour, label=f"{side}s", linewidth=2)
    axis.set(title="long tail of training", xscale="log", yscale="log")
    axis.set(xlabel="rank, most active first", ylabel="interactions")


def _categories(axis: Axes, figures: dict[str, Any], curves: dict[str, np.ndarray]) -> None:
    """Training interactions of each category, largest first, coloured by group."""
    axis.set(title="categories in training")
    size, group = curves["category"], curves["category_group"]
    if len(size) == 0:
        text = "no item has a category"
        axis.text(0.5, 0.5, text, ha="center", color=GREY, transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
        return
    for row, name in enumerate(GROUPS):
        own = np.where(group == row, size, 0)
        label = f"{name}: {(group == row).sum():,} ({own.sum() / size.sum():.0%})"
        # one outline: thousands of single bars take seconds to draw
        edges = np.arange(len(size) + 1) - 0.5
        axis.stairs(own, edges, fill=True, color=GROUP_COLOURS[name], label=label)
    axis.yaxis.set_major_formatter(COUNTS)
    axis.set(ylabel="interactions", ylim=(0, None))
    if len(size) <= NAMED_CATEGORIES:
        names = [_wrapped(clip(row["name"], 30), 16, 2) for row in figures["categories"]["top"]]
        axis.set_xticks(range(len(size)), names, rotation=60, ha="right", rotation_mode="anchor")
        places = "category"
    else:
        axis.set(yscale="log", ylim=(max(0.8, size.min() * 0.8), None))
        places = "rank of the category, largest first"
    axis.set_xlabel(f"{places} (above: number and share of interactions)")


def _histories(axis: Axes, figures: dict[str, Any], curves: dict[str, np.ndarray]) -> None:
    """Share of evaluated users with at most so many earlier interactions."""
    for part, style in (("val", "-"), ("test", "--")):
        ascending = np.sort(curves[f"history/{part}"])
        row = np.unique(np.linspace(0, len(ascending) - 1, 1_000).astype(int))
        share, colour = (row + 1) / len(ascending), PART_COLOURS[part]
        axis.step(ascending[row], share, style, color=colour, label=part, where="post", linewidth=2)
    if length := figures["history"]["length"]:
        axis.axvline(length, color="black", linewidth=1, label=f"data.history_length={length}")
    axis.set_xscale("symlog", linthresh=1)
    axis.xaxis.set_major_formatter(COUNTS)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(title="history of evaluated users", xlim=(0, None), ylim=(0, 1.02))
    axis.set(xlabel="earlier interactions, at most", ylabel="share of users")


def _targets(axis: Axes, figures: dict[str, Any]) -> None:
    """Shares of the targets by group of their item's category, and of cold ones."""
    groups = (*GROUPS, "none") if figures["categories"]["num"] else ()
    labels = ["no category" if name == "none" else name for name in groups]
    labels += ["cold item", "cold user"]
    place = np.arange(len(labels))
    for shift, part in ((-0.2, "val"), (0.2, "test")):
        own = figures["parts"][part]
        shares = [own["groups"][name] for name in groups]
        shares += [own["cold_item_targets"], own["cold_user_targets"]]
        bars = axis.barh(place + shift, shares, height=0.36, color=PART_COLOURS[part], label=part)
        axis.bar_label(bars, [percent(share) for share in shares], padding=4, fontsize=9)
    axis.set_yticks(place, labels)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.set(title="what the targets are", xlabel="share of targets")
    axis.set_xlim(0, max(0.01, axis.get_xlim()[1]) * 1.12)


def _wrapped(text: str, width: int = 26, num_lines: int = 3) -> str:
    return "\n".join(textwrap.wrap(printable(text), width)[:num_lines])
