"""Text for people: printable, without secrets, shortened; durations, paths and warnings."""

import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# control, format (also text direction), surrogates, private, unassigned, line separators
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # needed to write Persian, Indic scripts and some emoji

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
    """Remove characters that control a terminal or page: escapes, line ends, text direction.

    A tab or line end becomes a blank, so that words stay apart.
    """
    spaced = "".join(" " if character in "\t\n\r\v\f" else character for character in text)
    return "".join(c for c in spaced if c in JOINERS or unicodedata.category(c) not in UNSAFE)


def one_line(text: object) -> str:
    """The text of an error, for example, with line ends and runs of blanks as one blank each."""
    return " ".join(str(text).split())


def clip(text: str, length: int = 80) -> str:
    """``text`` on one line of at most ``length`` characters, safe to print."""
    text = one_line(printable(text))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def duration(seconds: float) -> str:
    """A duration in the unit that fits, such as ``0.4 s``, ``12 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def number(value: float) -> str:
    """A metric: ``.0459``."""
    return f"{value:.4f}".removeprefix("0")


def override(key: str, value: str) -> str:
    """``key=value`` as an override that can be pasted into a shell."""
    if re.fullmatch(r"[\w./+-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')  # the inner quotes are for Hydra


def typed(command: str) -> str:
    """How to type a command: ``twotower train`` if this program was called so."""
    called = Path(sys.argv[0])
    if called.name == "twotower":
        return f"twotower {command}"
    if called.parts[-2:] == ("twotower", "__main__.py"):
        return f"python -m twotower {command}"
    return f"python src/{command}.py"


def resume_command(last: Path, again: Iterable[str] = ()) -> str:
    """The command that continues a run from its ``last.ckpt``.

    Args:
        last: the checkpoint.
        again: overrides to repeat, see :func:`twotower.run.settings.repeated`.
    """
    given = override("ckpt_path", shown_path(last))
    return " ".join([typed("train"), given, *map(shlex.quote, again)])


def shown_path(path: Path) -> str:
    """``path`` relative to the working folder if it is inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class PlainConsole(Console):
    """Rich's console without markup, emoji and control characters, for text from data and files.

    Styles come from arguments and ``Text`` only.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments without control characters."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                text = "\n".join(map(printable, segment.text.split("\n")))
                yield Segment(text, segment.style)


def warn(line: str) -> None:
    """Print a warning on standard error."""
    console = PlainConsole(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("warning: ", "bold yellow"), line))
