"""Compare run folders: python src/report.py runs=outputs/sweeps/<sweep>; list all of them: list."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("report", sys.argv[1:])
