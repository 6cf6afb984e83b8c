"""Full ranking beside torchmetrics' retrieval metrics: python src/benchmark_evaluation.py data=movielens_1m."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.benchmark_evaluation.benchmark_evaluation", "benchmark_evaluation")
