"""Files that other systems read, from a checkpoint: python src/export.py ckpt_path=<run folder>/checkpoints/best.ckpt."""

from twotower.cli import command
from twotower.export.command import export

if __name__ == "__main__":
    command(export, "export")
