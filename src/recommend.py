"""Ask a trained model: python src/recommend.py ckpt_path=<run folder>/checkpoints/best.ckpt user_id=42 k=10."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.cli import command

    command("twotower.recommend.recommend", "recommend")
