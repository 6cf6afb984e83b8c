"""What ``--help`` prints: the comments and the examples of ``conf/``."""

import re
import textwrap
from collections.abc import Sequence

from rich.text import Text

from twotower.errors import UserError
from twotower.run.command_line import in_this_form
from twotower.run.conf import (
    File,
    Setting,
    defaults_list,
    groups,
    known,
    options,
    read,
    roots,
    suggestion,
)
from twotower.wording import PlainConsole

MARGIN = 34  # the column of the explanations; below what is typed if that is longer
ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+),([^}]*)\}")
FLAGS = {
    "--help NAME": "explain a group, an option or a setting: --help data, --help data=table",
    "--cfg job": "show every setting with its value, and run nothing",
    "-m": "a sweep: run all combinations of values that are separated by commas",
}


def topics(arguments: Sequence[str]) -> list[str] | None:
    """The words after ``--help``, None if it is not given."""
    for place, argument in enumerate(arguments):
        if argument in ("--help", "-h"):
            return list(arguments[place + 1 :])
    return None


def show_help(command: str, names: Sequence[str]) -> None:
    """Print the help of a command.

    Args:
        command: a file of ``conf/``.
        names: groups, options (``data=table``) and settings to explain; none: the whole command.

    Raises:
        UserError: for a name that the command does not have.
    """
    page = Page()
    if not names:
        _command(page, command)
    for name in names:
        _topic(page, command, name)
    page.print()


class Page:
    """Text in two columns, as wide as the terminal."""

    def __init__(self) -> None:
        self._console = PlainConsole(soft_wrap=True)
        self._width = max(2 * MARGIN, min(self._console.width, 120))
        self._text = Text()

    def print(self) -> None:
        """Print it at once."""
        self._console.print(self._text, end="")

    def title(self, line: str) -> None:
        """A title, after an empty line."""
        gap = "\n" if self._text else ""
        self._text.append(f"{gap}{line}\n", "bold")

    def paragraph(self, line: str) -> None:
        """Sentences."""
        self._text.append(f"{textwrap.fill(line, self._width)}\n")

    def example(self, command: str, comment: str) -> None:
        """A command on one line, so that it can be copied, and what it does."""
        self._text.append(f"  {command}\n", "cyan")
        if comment:
            self._text.append(f"      {comment}\n")

    def entry(self, name: str, about: str) -> None:
        """What is typed, and an explanation beside it."""
        lines = textwrap.wrap(
            about, self._width - MARGIN, break_long_words=False, break_on_hyphens=False
        )
        if len(name) + 2 > self._width:  # a long list continues on the next line
            place = name.rfind(",", 0, self._width - 2) + 1
            name = f"{name[:place]}\n      {name[place:]}"
        self._text.append(f"  {name}", "cyan")
        if lines and len(name) + 4 <= MARGIN:
            self._text.append(" " * (MARGIN - len(name) - 2) + lines.pop(0))
        for line in lines:
            self._text.append(f"\n{' ' * MARGIN}{line}")
        self._text.append("\n")


def _command(page: Page, command: str) -> None:
    """The sentence, the examples, the flags, the groups, and the settings of no group."""
    _about(page, command, read(command))
    page.title("Flags")
    for flag, about in FLAGS.items():
        if flag != "-m" or command == "train":
            page.entry(flag, about)
    if found := groups(command):
        page.title("Options: the default, then the others")
        choices = defaults_list(command).overrides.known_choices
        for group, listed in found.items():
            value = choices.get(group) or listed.value
            others = [name for name in options(group) if name not in re.findall(r"\w+", value)]
            about = ": ".join(filter(None, (listed.comment, ", ".join(others))))
            page.entry(f"{group}={value}", about)
    page.title("Other settings")
    for root in reversed(roots(command)):
        _settings(page, read(root).settings)


def _topic(page: Page, command: str, name: str) -> None:
    """A group with its options and settings, an option, or the settings of a node."""
    group, _, option = name.partition("=")
    names = known(command)
    inside = [other for other in names if f"{other}.".startswith(f"{group}.")]
    if not inside or (option and option not in options(group)):
        hint = suggestion(command, group) or "; --help alone lists them"
        raise UserError(f"--help {name}: no such group, option or setting{hint}")
    if option:
        page.title(name)
        _about(page, command, read(f"{group}/{option}"))
    elif options(group):
        comment = groups(command)[group].comment
        page.title(f"Options of {group}{f': {comment}' if comment else ''}")
        for other in options(group):
            about = read(f"{group}/{other}").about
            page.entry(f"{group}={other}", re.split(r"(?<=\.) (?=[A-Z])", about)[0])
    found = _composed(command, group, [name] if option else [])
    owner = next(iter(names[inside[0]]), None)
    if not found and owner:  # the default options do not have it
        found = _composed(command, group, [owner])
    if found:
        others = f" of the default; of another: --help {group}=<option>"
        page.title(f"Settings{others if options(group) and not option else ''}")
        _settings(page, found)


def _about(page: Page, command: str, file: File) -> None:
    page.paragraph(file.about)
    if file.examples:
        page.title("Examples" if len(file.examples) > 1 else "Example")
    for example, comment in file.examples.items():
        page.example(in_this_form(example), comment)


def _settings(page: Page, settings: dict[str, Setting]) -> None:
    for name, (value, comment) in settings.items():
        if value == "???":
            page.entry(f"{name}=…", f"required: {comment}")
            continue
        if found := ENVIRONMENT.fullmatch(value):
            variable, value = found.groups()
            comment = f"{comment}; the default is ${variable}, if it is set"
        page.entry(f"{name}={value}" if value else name, comment)


def _composed(command: str, group: str, overrides: list[str]) -> dict[str, Setting]:
    """The settings of a group or node, as these overrides compose them."""
    found: dict[str, Setting] = {}
    for item in defaults_list(command, overrides).defaults:
        for name, setting in read(item.config_path, item.package).settings.items():
            belongs = item.config_path.startswith(f"{group}/") or f"{name}.".startswith(f"{group}.")
            if belongs and setting.value != "???":  # a node that each option fills
                comment = setting.comment or found.get(name, setting).comment
                found[name] = Setting(setting.value, comment)
    return found
