"""What a long evaluation will take, said before: time from its first steps, memory from its sizes."""

import time

import torch
from torch import Tensor

from twotower.retrieval.exact import chunk_bytes
from twotower.wording import PlainConsole

LONG = 30.0  # seconds; shorter evaluations say nothing


class Forecast:
    """Told of each step of an evaluation; after the second, which is timed, it prints a line if all of them take long.

    Args:
        name: of the part.
        num_steps: of this process.
        num_users: of this process.
        item: ``(num_items, dim)`` the corpus.
        silent: print nothing.
    """

    def __init__(self, name: str, num_steps: int, num_users: int, item: Tensor, silent: bool = False) -> None:
        self.name = name
        self.num_steps = num_steps
        self.num_users = num_users
        self.item = item
        self.silent = silent
        self.steps = 0
        self.started = 0.0
        self.seconds: float | None = None  # of the whole, as foretold
        self.bytes: int | None = None

    def step(self, user: Tensor) -> None:
        """A step is done, which ranked for ``(batch, ...)`` users. The first one warms up; after the second nothing happens."""
        self.steps += 1
        if self.steps > 2:
            return
        if user.is_cuda:
            torch.cuda.synchronize()
        if self.steps == 2:
            self.seconds = (time.perf_counter() - self.started) * self.num_steps
            self.bytes = evaluation_bytes(user, self.item)
            if self.seconds > LONG and not self.silent:
                PlainConsole(stderr=True, soft_wrap=True).print(self.line())
        self.started = time.perf_counter()

    def line(self) -> str:
        """What is printed."""
        assert self.seconds is not None and self.bytes is not None
        sizes = f"{self.num_users:,} users x {len(self.item):,} items"
        return f"{self.name}: {sizes}, about {duration(self.seconds)}, {self.bytes / 2**20:,.0f} MiB for vectors and scores"


def evaluation_bytes(user: Tensor, item: Tensor) -> int:
    """Most memory for ranking: the corpus once more while it is put together, or beside it a chunk of scores."""
    return item.nbytes + max(item.nbytes, chunk_bytes(user, item))


def duration(seconds: float) -> str:
    """In the unit that people would say."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
