"""Step and evaluation time beside a bare PyTorch loop: python src/benchmark.py experiment=dat_paper data=movielens_1m."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.benchmark.benchmark", "benchmark")
