"""Ask a trained model: python src/recommend.py ckpt_path=<checkpoint> user_id=42 k=10."""

import sys

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command
    from twotower.run.raw_ids import quote_ids

    sys.argv[1:] = quote_ids(sys.argv[1:])
    command("twotower.serve.recommend.recommend", "recommend")
