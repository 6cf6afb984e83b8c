"""Step and evaluation time beside a bare PyTorch loop: python src/benchmark.py experiment=dat_paper data=movielens_1m."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.benchmark.benchmark", "benchmark")
