"""Export a checkpoint for other systems: python src/export.py ckpt_path=<checkpoint>."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("export", sys.argv[1:])
