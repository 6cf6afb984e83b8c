"""Compare run folders: python src/report.py runs=outputs/sweeps/<sweep>."""

from twotower.cli import command
from twotower.report.command import report

if __name__ == "__main__":
    command(report, "report")
