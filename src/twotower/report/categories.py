"""Gains by category, from head to tail."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.plotting import BAR, BLACK, BLUE, GREY, ORANGE, frame, new_figure, short
from twotower.report.comparison import Comparison
from twotower.report.ranks import Ranks
from twotower.report.runs import Run
from twotower.report.section import Section
from twotower.report.statistics import bootstrap
from twotower.report.text import percent, versus

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
    figure = new_figure(max(7, 2.2 + 0.5 * len(groups)), 1.9 + 1.7 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, row in zip(panels, shown, strict=True):
        _draw(panel, [gain(row, mask, section) for mask in groups.values()])
        note = f" ({row.note})" if row.note else ""
        frame(panel, f"{short(row.variant.label, 60)}{note}", grid="y")
    panels[-1].set_xticks(range(len(groups)), list(groups), rotation=40, ha="right", fontsize=8.5)
    omitted = f"; the best {len(shown)} of {len(rows)} variants" if len(rows) > len(shown) else ""
    figure.suptitle(
        f"{versus(section)} by category, largest in training first (test users)\n"
        f"{percent(section.options.level)} intervals over users, each by itself: of {len(groups)}, "
        f"some miss zero by chance{omitted}",
        fontsize=10,
    )
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
