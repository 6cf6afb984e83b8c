"""Gains by category, from head to tail: where does a variant help?"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.plotting import BLACK, BLUE, GREY, ORANGE, frame, new_figure, short
from twotower.report.ranks import Ranks, per_user
from twotower.report.section import Row, Section, Wanted
from twotower.report.statistics import bootstrap
from twotower.report.text import metric_name

MAX_CATEGORIES = 18  # the largest; the rest, and those with few test users, are taken together
MIN_USERS = 20  # fewer have no interval to speak of
MAX_PANELS = 5
RESAMPLES = 2000


class Gains(NamedTuple):
    """Of one variant; each ``(num_categories,)``, the last one of the rest."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def by_category(section: Section, wanted: Wanted) -> Figure | None:
    """A panel for each of the best variants; None without ranks of both sides or with one category."""
    others = [row for row in section.rows[1:] if _has_ranks(row, section)]
    groups = _groups(section) if others else {}
    if len(groups) < 2:
        return None
    shown = others[:MAX_PANELS]
    figure = new_figure(max(7, 2.2 + 0.5 * len(groups)), 1.9 + 1.7 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, row in zip(panels, shown, strict=True):
        assert row.difference is not None
        note = row.difference.compared.note
        title = short(row.variant.label, 60) + (f" ({note})" if note else "")
        _panel(panel, gains(section, row, list(groups.values()), wanted), title)
    panels[-1].set_xticks(range(len(groups)), list(groups), rotation=40, ha="right", fontsize=8.5)
    what = f"{section.name}: Δ {metric_name(wanted.metric)} to {short(section.baseline.label)}"
    how = (
        f"{wanted.level:.0%}".replace("%", " %")
        + f" intervals over users, each by itself: of {len(groups)}, some miss zero by chance"
    )
    if len(others) > len(shown):
        how += f"; the best {len(shown)} of {len(others)} variants"
    figure.suptitle(
        f"{what} by category, largest in training first (test users)\n{how}", fontsize=10
    )
    return figure


def gains(section: Section, row: Row, masks: list[np.ndarray], wanted: Wanted) -> Gains:
    """Differences to the baseline for the targets of each mask, users averaged over the runs compared."""
    assert row.difference is not None
    metric, used = wanted.metrics[wanted.metric], row.difference.compared
    sides = ((row.variant.label, used.variant), (section.baseline.label, used.baseline))
    found = []
    for mask in masks:
        one, other = (
            np.mean([per_user(section.ranks[label][seed].of(mask), metric) for seed in seeds], 0)
            for label, seeds in sides
        )
        difference = one - other  # (num_users,)
        generator = np.random.default_rng(wanted.seed)
        low, high = bootstrap(difference[:, None], RESAMPLES, wanted.level, generator)[:, 0]
        found.append((difference.mean(), low, high))
    return Gains(*(np.array(part) for part in zip(*found, strict=True)))


def _has_ranks(row: Row, section: Section) -> bool:
    """Have all the runs that the row's difference is of?"""
    if row.difference is None:
        return False
    used = row.difference.compared
    own, start = section.ranks[row.variant.label], section.ranks[section.baseline.label]
    return set(used.variant) <= own.keys() and set(used.baseline) <= start.keys()


def _groups(section: Section) -> dict[str, np.ndarray]:
    """Which targets are of each category, largest in training first.

    Names and places come from one run of the baseline: runs of other features may number the
    categories differently. The keys are the names with the number of test users.
    """
    seed, ranks = next(iter(section.ranks[section.baseline.label].items()))
    records = [run.record for run in section.baseline.runs if run.record["seed"] == seed]
    named = records[0].get("categories") or []
    own = {place: ranks.category == place for place in range(min(len(named), MAX_CATEGORIES))}
    own = {
        place: mask for place, mask in own.items() if len(np.unique(ranks.user[mask])) >= MIN_USERS
    }
    masks = {_name(named[place]["name"], ranks, mask): mask for place, mask in own.items()}
    rest = (ranks.category >= 0) & ~np.isin(ranks.category, list(own))
    if rest.any():
        masks[_name("all smaller ones", ranks, rest)] = rest
    return masks


def _name(category: str, ranks: Ranks, mask: np.ndarray) -> str:
    return f"{short(category, 22)} ({len(np.unique(ranks.user[mask])):,})"


def _panel(axis: Axes, found: Gains, title: str) -> None:
    axis.axhline(0, color=BLACK, linewidth=1)
    for place, (mean, low, high) in enumerate(zip(*found, strict=True)):
        colour = GREY if low <= 0 <= high else BLUE if mean > 0 else ORANGE
        axis.plot([place, place], [low, high], color=colour, linewidth=2.2, solid_capstyle="round")
        axis.plot(place, mean, "o", color=colour, markersize=6)
    frame(axis, title)
    axis.grid(axis="x", visible=False)
