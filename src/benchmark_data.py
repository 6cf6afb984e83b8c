"""Training from windows of mapped data beside training in memory: python src/benchmark_data.py."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.benchmark_data.benchmark_data", "benchmark_data")
