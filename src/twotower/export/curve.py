"""Recall against latency, as a plot."""

from pathlib import Path
from typing import Any

from twotower.plotting import BLUE, GREY, RED, frame, new_figure, save_figure


def draw_curve(parity: dict[str, Any], index: dict[str, Any], path: Path) -> None:
    """Two panels over the milliseconds of a search: recall of the exact list, and hit rate beside the exact one."""
    figure = new_figure(9, 3.6)
    k, points, parameter = parity["k"], parity["curve"], index["parameter"]
    time = [point["milliseconds"] for point in points]
    panels = (
        ("recall", f"recall@{k} of exact search", 1.0),
        ("hit_rate", f"hit rate@{k}", parity["exact_hit_rate"]),
    )
    for axis, (name, title, exact) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.axhline(exact, color=GREY, linewidth=1, linestyle="--")
        axis.plot(
            parity["flat"]["milliseconds"], exact, "s", color=RED, label="exact search (flat)"
        )
        axis.plot(
            time,
            [point[name] for point in points],
            "o-",
            color=BLUE,
            label=f"{index['type']}, by {parameter}",
        )
        for point in points:
            place = (point["milliseconds"], point[name])
            axis.annotate(
                str(point[parameter]),
                place,
                (0, -13),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=BLUE,
            )
        frame(axis, title)
        axis.set_xlabel("milliseconds of a user's search, one thread")
        axis.set_xlim(left=0)
        axis.margins(y=0.15)
    axis.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
