"""Step and evaluation time beside a bare PyTorch loop: python src/benchmark.py experiment=dat_paper data=movielens_1m."""

from twotower.benchmark import benchmark
from twotower.cli import command

if __name__ == "__main__":
    command(benchmark, "benchmark")
