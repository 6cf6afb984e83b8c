"""``twotower train …`` and ``python -m twotower train …``: the commands of an installed package."""

import difflib
import sys

from twotower import signals
from twotower.run.commands import COMMANDS
from twotower.wording import typed

INSTALLED = {name: command for name, command in COMMANDS.items() if name != "benchmark"}


def main() -> None:
    """Run the command that the first argument names."""
    signals.listen()  # before the imports, which take seconds
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
    elif name not in INSTALLED:
        sys.exit(_unknown(name))
    else:
        from twotower.run.cli import command

        command(name, arguments)


def _help() -> str:
    width = max(map(len, INSTALLED))
    lines = [f"  {name:{width}}  {command.purpose}" for name, command in INSTALLED.items()]
    example = f"{typed('train')} model=dat data=movielens_1m"
    hint = f"{typed('<command>')} --help shows its settings."
    return "\n".join(
        [f"usage: {typed('<command>')} <setting>=<value> …", "", *lines, "", example, hint]
    )


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, INSTALLED, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"error: unknown command {name}{hint}; choose from {', '.join(INSTALLED)}"


if __name__ == "__main__":
    main()
