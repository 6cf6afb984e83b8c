"""A shuffled order for data larger than memory: shuffled blocks, then shuffled windows of them."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

BLOCKS = 64  # per window, so a batch mixes interactions from up to 64 places of the data


class WindowOrder:
    """A permutation of ``0 … num - 1``, sliced like a tensor, with two windows in memory.

    Blocks of ``window / 64`` neighbours are shuffled; 64 of them form a window, and each window is
    shuffled. Every slice depends only on the seed, so a run can start anywhere. While one window is
    used, a thread makes the next one and reads ahead.

    Args:
        num: number of places.
        window: places shuffled together; ``num`` or more gives a full shuffle.
        seed: of blocks and windows.
        read_ahead: called with the first place of each block and the one after its last, before
            its window is used.
    """

    def __init__(
        self, num: int, window: int, seed: int, read_ahead: Callable[[int, int], None]
    ) -> None:
        self.num = num
        self.block = -(-window // BLOCKS)
        self.seed = seed
        self.read_ahead = read_ahead
        num_blocks = -(-num // self.block)
        order = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(seed))
        # Ascending within a window: faster to read, and the block that may be short comes last.
        self.starts = [(blocks * self.block).sort().values for blocks in order.split(BLOCKS)]
        sizes = [int((num - starts).clamp_max(self.block).sum()) for starts in self.starts]
        self.bounds = np.cumsum([0, *sizes])  # (num_windows + 1,)
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._windows: dict[int, Future[Tensor]] = {}

    def __getitem__(self, rows: slice) -> Tensor:
        """Entries ``rows.start`` to ``rows.stop - 1`` of the order."""
        parts, start, stop = [], rows.start, min(rows.stop, self.num)
        while start < stop:
            window = int(np.searchsorted(self.bounds, start, side="right")) - 1
            first, last = int(self.bounds[window]), min(stop, int(self.bounds[window + 1]))
            parts.append(self._window(window)[start - first : last - first])
            start = last
        return torch.cat(parts)

    def _window(self, window: int) -> Tensor:
        kept = range(window, min(window + 2, len(self.starts)))
        if self._windows.keys() != set(kept):
            before, self._windows = self._windows, {}
            for number in kept:
                made = before.get(number) or self._thread.submit(self._make, number)
                self._windows[number] = made
        return self._windows[window].result()

    def _make(self, window: int) -> Tensor:
        """Places of one window, shuffled."""
        starts = self.starts[window]
        for start in starts.tolist():
            self.read_ahead(start, min(start + self.block, self.num))
        seed = int(np.random.SeedSequence([self.seed, window]).generate_state(1)[0])
        size = int(self.bounds[window + 1] - self.bounds[window])
        place = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        places: Tensor = starts[place // self.block] + place % self.block
        return places
