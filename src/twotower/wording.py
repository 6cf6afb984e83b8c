"""Text from data, files and settings, made safe to print, to draw and to keep."""

import re
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNSAFE = {
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
}  # control, format (bidirectional too), surrogates, line separators
JOINERS = "\u200c\u200d"  # needed to write Persian, Indic scripts and some emoji
PLAIN: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}
MAX_NAME = 34  # characters beside a plot

LOGIN = re.compile(r"://[^\s'\"]*@")
QUERY = re.compile(r"(://[^\s'\",?]*\?)[^\s'\",]+")  # a signed address has its token there
SECRET = re.compile(
    r"""([\w.]*(?:api_?key|token|passw(?:or)?d|secret|signature|credential)s?\s*[=:][ ]*)"""
    r"""(?!\$\{|null\b|\s|\*\*\*)("[^"\n]*"|'[^'\n]*'|[^\s,&}]+)""",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Hide passwords and tokens in texts that are kept: overrides, YAML files, command lines.

    Of an address, the login and the query go; of a setting that is named as a secret, its value.
    Interpolations stay, as they hold a name and no secret.
    """
    text = QUERY.sub(r"\1***", LOGIN.sub("://***@", text))
    return SECRET.sub(r"\1***", text)


def printable(text: str) -> str:
    """Drop what a terminal or a page would obey instead of show: escape sequences, line ends, text direction.

    A tab or line end becomes a blank, so that words stay apart.
    """
    spaced = "".join(" " if character in "\t\n\r\v\f" else character for character in text)
    return "".join(c for c in spaced if c in JOINERS or unicodedata.category(c) not in UNSAFE)


class PlainConsole(Console):
    """Rich's console for text from data, files and the command line. Styles come from arguments and ``Text`` alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments without the characters that a terminal would obey."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                text = "\n".join(map(printable, segment.text.split("\n")))
                yield Segment(text, segment.style)


def save_figure(figure: "Figure", target: Path | IO[bytes], **options: Any) -> None:
    """Write a figure as PNG.

    Text between two dollar signs is text: a price band ``$5_to_$10`` is no formula. Characters that
    the font lacks are drawn as boxes, without a warning for each.

    Args:
        figure: whose texts are all taken as they are.
        target: a path, whose link or file is replaced, or an open file.
        options: of matplotlib's ``savefig``.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext

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
