"""Training from windows of mapped data beside training in memory: python src/benchmark_data.py."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.benchmark_data.benchmark_data", "benchmark_data")
