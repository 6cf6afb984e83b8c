"""How every plot is written: names from data are shown as they are, never read as formulas."""

import warnings
from pathlib import Path
from typing import IO, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

from twotower.wording import printable

PLAIN: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}
MAX_NAME = 34


def save_figure(figure: Figure, target: Path | IO[bytes], **options: Any) -> None:
    """Write a figure as PNG.

    Text between two dollar signs is text: a price band ``$5_to_$10`` is no formula. Characters that
    the font lacks are drawn as boxes, without a warning for each.

    Args:
        figure: whose texts are all taken as they are.
        target: a path, whose link or file is replaced, or an open file.
        options: of matplotlib's ``savefig``.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # the powers of a logarithmic axis are formulas too
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(LogFormatter())
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(LogFormatter())
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
    if isinstance(target, Path):
        target.unlink(missing_ok=True)  # a link would be followed
    with rc_context(PLAIN), warnings.catch_warnings():  # some texts are made while drawing
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(target, format="png", **options)


def short(name: str, length: int = MAX_NAME) -> str:
    """A name from data that fits beside a plot."""
    name = printable(name)
    if name.startswith("_"):
        name = f" {name}"  # matplotlib leaves a label that begins with _ out of the legend
    return name if len(name) <= length else f"{name[: length - 1]}…"
