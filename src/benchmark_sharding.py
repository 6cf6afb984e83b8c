"""Whole and sharded tables side by side: python src/benchmark_sharding.py model=two_tower optimizer=rowwise_adagrad."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.benchmark_sharding.benchmark_sharding", "benchmark_sharding")
