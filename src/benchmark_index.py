"""Latency of a search among many items: python src/benchmark_index.py num_items=1000000."""

from twotower.cli import command
from twotower.export.latency import benchmark_index

if __name__ == "__main__":
    command(benchmark_index, "benchmark_index")
