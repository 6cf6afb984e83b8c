"""Repeat the test of a checkpoint: python src/evaluate.py ckpt_path=<run folder>/checkpoints/best.ckpt."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.run.evaluate", "evaluate")
