"""Prepare data ahead of time and see what is in them: python src/prepare.py data=movielens_1m."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.run.prepare", "prepare")
