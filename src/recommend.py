"""Ask a trained model: python src/recommend.py ckpt_path=<checkpoint> user_id=42 k=10."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("recommend", sys.argv[1:])
