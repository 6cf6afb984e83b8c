"""Full ranking beside torchmetrics' retrieval metrics: python src/benchmark_evaluation.py data=movielens_1m."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.benchmark_evaluation import benchmark_evaluation
    from twotower.cli import command

    command(benchmark_evaluation, "benchmark_evaluation")
