"""Files that other systems read, from a checkpoint: python src/export.py ckpt_path=<run folder>/checkpoints/best.ckpt."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.export.command.export", "export")
