"""Prepare and describe data: python src/prepare.py data=movielens_1m."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("prepare", sys.argv[1:])
