"""Full ranking beside torchmetrics' retrieval metrics: python src/benchmark_evaluation.py data=movielens_1m."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.benchmark_evaluation.benchmark_evaluation", "benchmark_evaluation")
