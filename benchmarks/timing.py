"""Clock and round-robin timing for all benchmarks."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

import torch

Key = TypeVar("Key")


def now() -> float:
    """Current time in seconds, after the GPU has finished all queued work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(contestants: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Seconds of each contestant in each round.

    In a round all run one after the other, so the load of the machine affects all equally.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            seconds[name].append(run())
    return seconds


def milliseconds(seconds: list[float]) -> float:
    """The median over rounds, in milliseconds."""
    return 1000 * median(seconds)
