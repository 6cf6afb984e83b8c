"""Step time as tables grow: python src/benchmark_tables.py model=two_tower optimizer=rowwise_adagrad."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.benchmark_tables.benchmark_tables", "benchmark_tables")
