"""Gains by category, from head to tail."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twotower.plotting import (
    BAR,
    BLACK,
    BLUE,
    GREY,
    NARROW,
    ORANGE,
    frame,
    legend_below,
    new_figure,
    set_heading,
    short,
)
from twotower.report.comparison import Comparison
from twotower.report.ranks import Ranks
from twotower.report.runs import Run
from twotower.report.section import Section
from twotower.report.statistics import bootstrap
from twotower.report.text import metric_name, percent, versus

MAX_CATEGORIES = 18  # the largest; the others, and those with few test users, are taken together
MIN_USERS = 20  # fewer give no useful interval
MAX_PANELS = 5
RESAMPLES = 2000


def categories(section: Section) -> Figure | None:
    """A panel for each of the best variants; None without ranks or with fewer than two groups."""
    rows = [row for row in section.comparisons if row.users]
    groups = _groups(rows[0].other.runs[0]) if rows else {}
    if len(groups) < 2:
        return None
    shown = rows[:MAX_PANELS]
    figure = new_figure(NARROW, 2.9 + 1.3 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, row in zip(panels, shown, strict=True):
        _draw(panel, [gain(row, mask, section) for mask in groups.values()])
        note = f" ({row.note})" if row.note else ""
        frame(panel, f"{short(row.variant.label)}{note}", grid="y")
        panel.set_ylabel(f"Δ test {metric_name(section.options.metric)}", fontsize=9)
    slanted: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    panels[-1].set_xticks(range(len(groups)), list(groups), fontsize=9, **slanted)
    panels[-1].set_xlabel("category, largest in training first (test users)")
    omitted = f"; the best {len(shown)} of {len(rows)} variants" if len(rows) > len(shown) else ""
    set_heading(
        figure,
        f"{versus(section)} by category\n"
        f"{percent(section.options.level)} intervals over users, each by itself: of {len(groups)}, "
        f"some miss zero by chance{omitted}",
    )
    handles = [
        Line2D([], [], color=BLUE, marker="o", label="better"),
        Line2D([], [], color=ORANGE, marker="o", label="worse"),
        Line2D([], [], color=GREY, marker="o", label="the interval contains zero"),
    ]
    legend_below(figure, handles)
    return figure


def gain(row: Comparison, mask: np.ndarray, section: Section) -> tuple[float, float, float]:
    """Difference on the targets of a mask ``(num_targets,)``: mean and both ends of its interval.

    The row is of a variant whose runs have ranks.
    """
    options = section.options
    metric = options.metrics[options.metric]
    difference = row.one.per_user(metric, mask) - row.other.per_user(metric, mask)  # (num_users,)
    generator = np.random.default_rng(options.seed)
    ends = bootstrap(difference, RESAMPLES, options.level, generator)
    return float(difference.mean()), *ends


def _groups(run: Run) -> dict[str, np.ndarray]:
    """Masks of the targets by category, the largest in training first.

    Runs with other features may number the categories differently, so names and masks are of one
    run. The keys are the names with the number of test users.
    """
    ranks, groups = run.ranks, {}
    assert isinstance(ranks, Ranks)
    rest = ranks.category >= 0
    for place, category in enumerate(run.record.categories[:MAX_CATEGORIES]):
        mask = ranks.category == place
        num_users = len(np.unique(ranks.user[mask]))
        if num_users >= MIN_USERS:
            groups[f"{short(category.name, 22)} ({num_users:,})"] = mask
            rest &= ~mask
    if rest.any():
        groups[f"all smaller ones ({len(np.unique(ranks.user[rest])):,})"] = rest
    return groups


def _draw(axis: Axes, gains: list[tuple[float, float, float]]) -> None:
    axis.axhline(0, color=BLACK, linewidth=1)
    for place, (mean, low, high) in enumerate(gains):
        colour = GREY
        if low > 0 or high < 0:
            colour = BLUE if mean > 0 else ORANGE
        axis.vlines(place, low, high, color=colour, **BAR)
        axis.plot(place, mean, "o", color=colour, markersize=6)
