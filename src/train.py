"""Train a model, test its best checkpoint: python src/train.py model=dat loss.lambda3=0."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.launch.train", "train")
