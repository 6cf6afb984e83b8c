"""Gains by category, from head to tail: where does a variant help?"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.report.ranks import Ranks, per_user
from twotower.report.section import Section, Wanted
from twotower.report.statistics import bootstrap
from twotower.report.style import BLACK, BLUE, GREY, ORANGE, frame, new_figure, short
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
    others = [row.variant.label for row in section.rows[1:] if row.variant.label in section.ranks]
    groups = _groups(section)
    if section.baseline.label not in section.ranks or not others or len(groups) < 2:
        return None
    shown = others[:MAX_PANELS]
    figure = new_figure(max(7, 2.2 + 0.5 * len(groups)), 1.9 + 1.7 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, label in zip(panels, shown, strict=True):
        _panel(panel, gains(section, label, list(groups.values()), wanted), short(label, 60))
    panels[-1].set_xticks(range(len(groups)), list(groups), rotation=40, ha="right", fontsize=8.5)
    what = f"{section.name}: Δ {metric_name(wanted.metric)} to {short(section.baseline.label)}"
    how = (
        f"{wanted.level:.0%}".replace("%", " %")
        + f" intervals over users, each by itself: of {len(groups)}, some miss zero by chance"
    )
    if len(others) > len(shown):
        how += f"; the best {len(shown)} of {len(others)} variants"
    figure.suptitle(f"{what} by category, largest in training first (test users)\n{how}", fontsize=10)
    return figure


def gains(section: Section, label: str, masks: list[np.ndarray], wanted: Wanted) -> Gains:
    """Differences to the baseline for the targets of each mask, users averaged over seeds."""
    metric = wanted.metrics[wanted.metric]
    found = []
    for mask in masks:
        one, other = (
            [per_user(ranks.of(mask), metric) for ranks in section.ranks[name]] for name in (label, section.baseline.label)
        )
        difference = np.mean(one, 0) - np.mean(other, 0)  # (num_users,)
        low, high = bootstrap(difference[:, None], RESAMPLES, wanted.level, np.random.default_rng(wanted.seed))[:, 0]
        found.append((difference.mean(), low, high))
    return Gains(*(np.array(part) for part in zip(*found, strict=True)))


def _groups(section: Section) -> dict[str, np.ndarray]:
    """Which targets are of each category, by the category's name with its number of test users; largest in training first."""
    ranks = next(iter(section.ranks.values()), [None])[0]
    named = section.rows[0].variant.runs[0].record.get("categories") or []
    if ranks is None or not named:
        return {}
    own = {place: ranks.category == place for place in range(min(len(named), MAX_CATEGORIES))}
    own = {place: mask for place, mask in own.items() if len(np.unique(ranks.user[mask])) >= MIN_USERS}
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
