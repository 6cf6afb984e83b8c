"""Compare run folders: python src/report.py runs=outputs/sweeps/<sweep>."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.report.command.report", "report")
