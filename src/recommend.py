"""Ask a trained model: python src/recommend.py ckpt_path=<run folder>/checkpoints/best.ckpt user_id=42 k=10."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.recommend.recommend", "recommend")
