"""Whole and sharded tables side by side: python src/benchmark_sharding.py model=two_tower optimizer=rowwise_adagrad."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.benchmark_sharding.benchmark_sharding", "benchmark_sharding")
