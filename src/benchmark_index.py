"""Latency of a search among many items: python src/benchmark_index.py num_items=1000000."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.export.latency.benchmark_index", "benchmark_index")
