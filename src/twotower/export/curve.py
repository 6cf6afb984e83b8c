"""Plot of an index's recall, hit rate and search time over its setting."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotower.plotting import BLUE, GREY, NARROW, frame, legend_below, new_figure

MANY_DIGITS = 30  # that do not fit side by side below a plot


def recall_curve(parity: dict[str, Any], index: dict[str, Any]) -> Figure:
    """Three panels over the values of the setting that trades recall for time.

    Args:
        parity: of the manifest, with a ``curve``.
        index: of the manifest.
    """
    k, milliseconds = parity["k"], parity["flat"]["milliseconds"]
    figure = new_figure(NARROW, 6.5)
    recall, hits, time = figure.subplots(3, 1, sharex=True)
    _draw(recall, "recall", 1.0, parity, index)
    _label(recall, "how much of the exact list it finds", f"recall@{k}")
    _draw(hits, "hit_rate", parity["exact_hit_rate"], parity, index)
    _label(hits, "test users whose held-out item it finds", f"hit rate@{k}")
    _draw(time, "milliseconds", milliseconds, parity, index)
    _label(time, "median time of one search, one thread", "milliseconds")
    time.set_ylim(bottom=0)
    time.set_xlabel(f"{index['parameter']} of {index['type']}")
    legend_below(figure)
    return figure


def _draw(
    axis: Axes, name: str, exact: float, parity: dict[str, Any], index: dict[str, Any]
) -> None:
    points, parameter = parity["curve"], index["parameter"]
    places = range(len(points))  # at equal distances, so that no number lies on another
    axis.axhline(exact, color=GREY, linewidth=1.2, linestyle="--", label="exact search (flat)")
    axis.plot(places, [point[name] for point in points], "o-", color=BLUE, label=index["type"])
    names = [str(point[parameter]) for point in points]
    axis.set_xticks(places, names, rotation=90 if len("".join(names)) > MANY_DIGITS else 0)
    axis.margins(y=0.15)


def _label(axis: Axes, title: str, unit: str) -> None:
    frame(axis, title)
    axis.set_ylabel(unit, fontsize=9)
