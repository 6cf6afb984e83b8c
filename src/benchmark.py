"""Measure speed and memory: python src/benchmark.py benchmark=step experiment=dat_paper."""

import sys
from pathlib import Path

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    # benchmarks/ is outside the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    command("benchmark", sys.argv[1:])
