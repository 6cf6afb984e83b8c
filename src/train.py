"""Train a model, test its best checkpoint: python src/train.py model=dat loss.lambda3=0."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("train", sys.argv[1:])
