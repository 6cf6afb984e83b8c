"""Repeat the test of a checkpoint: python src/evaluate.py ckpt_path=<checkpoint>."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("evaluate", sys.argv[1:])
