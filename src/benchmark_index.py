"""Latency of a search among many items: python src/benchmark_index.py num_items=1000000."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.export.latency.benchmark_index", "benchmark_index")
