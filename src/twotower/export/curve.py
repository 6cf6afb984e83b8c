"""Plot of an index's recall against its latency."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from twotower.plotting import BLUE, GREY, RED, frame, new_figure, save_figure


def draw_curve(parity: dict[str, Any], index: dict[str, Any], path: Path) -> None:
    """Draw recall of the exact list and hit rate over the milliseconds of a search."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    k = parity["k"]
    _draw(left, "recall", 1.0, parity, index)
    frame(left, f"recall@{k} of exact search")
    _draw(right, "hit_rate", parity["exact_hit_rate"], parity, index)
    frame(right, f"hit rate@{k}")
    right.legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw(
    axis: Axes, name: str, exact: float, parity: dict[str, Any], index: dict[str, Any]
) -> None:
    points, parameter = parity["curve"], index["parameter"]
    times = [point["milliseconds"] for point in points]
    values = [point[name] for point in points]
    axis.axhline(exact, color=GREY, linewidth=1, linestyle="--")
    flat = parity["flat"]["milliseconds"]
    axis.plot(flat, exact, "s", color=RED, label="exact search (flat)")
    axis.plot(times, values, "o-", color=BLUE, label=f"{index['type']}, by {parameter}")
    text: dict[str, Any] = {"ha": "center", "fontsize": 8, "color": BLUE}
    for point, time, value in zip(points, times, values, strict=True):
        label = str(point[parameter])
        axis.annotate(label, (time, value), (0, -13), textcoords="offset points", **text)
    axis.set_xlabel("milliseconds of a user's search, one thread")
    axis.set_xlim(left=0)
    axis.margins(y=0.15)
