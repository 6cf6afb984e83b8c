"""Compare run folders: python src/report.py runs=outputs/sweeps/<sweep>."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.report.command.report", "report")
