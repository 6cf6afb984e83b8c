"""Clock and turns that the benchmarks share."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

import torch

Key = TypeVar("Key")


def now() -> float:
    """Seconds, after all that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(contestants: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Seconds of each contestant in each round; they run one after the other, so all meet the same load of the machine."""
    seconds: dict[Key, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            seconds[name].append(run())
    return seconds


def milliseconds(seconds: list[float]) -> float:
    """The median of rounds."""
    return 1000 * median(seconds)
