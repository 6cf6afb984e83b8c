"""Step time as tables grow: python src/benchmark_tables.py model=two_tower optimizer=rowwise_adagrad."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.benchmark_tables.benchmark_tables", "benchmark_tables")
