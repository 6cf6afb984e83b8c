"""Training steps as CUDA graphs: kernels that are recorded once and then replayed.

A replay costs the host a few microseconds, while a step's kernels cost it milliseconds to start one
by one. What a replay reads and writes must stay where it was when it was recorded: positions of the
batch, weights, state of the optimizer.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from twotower.data import sampling
from twotower.types import Batch

WARM_UP = 2  # plain steps before a recording: they load kernels and fill caches

Output = tuple[Tensor, dict[str, Tensor]]


class Parts(NamedTuple):
    """A step, in two parts.

    Attributes:
        batch: makes a seed's batch from the number of the seed and ``(batch,)`` positions.
        learn: trains one step on the batches of all seeds.
    """

    batch: Callable[[int, Tensor], Batch]
    learn: Callable[[Sequence[Batch]], Output]


class Seeds(NamedTuple):
    """What everything random in a step follows from.

    Attributes:
        batches: of the draws of each seed's batch.
        dropout: of the draws of the models; None: they go on after those of the last batch, as in
            the step of a run alone.
    """

    batches: Sequence[int]
    dropout: int | None


class Recording(NamedTuple):
    """A recorded step of batches of one shape.

    Attributes:
        position: ``(num_seeds, batch)`` positions that the batches are made of.
        batches: one graph for each seed, as a graph reads seed and offset of the device's generator
            once, when its replay starts.
        made: the batches, which the next replay overwrites.
        learn: all that follows.
        output: losses and terms, overwritten too.
    """

    position: Tensor
    batches: list[torch.cuda.CUDAGraph]
    made: list[Batch]
    learn: torch.cuda.CUDAGraph
    output: Output


class Recorder:
    """Records a step for each shape of batch, after a few plain steps of that shape.

    The plain steps are steps of the training as well, so that nothing has to be restored.

    Args:
        device: an NVIDIA GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.forget()

    def forget(self) -> None:
        """Record again, after plain steps: what was recorded is outdated."""
        self.num_plain: Counter[torch.Size] = Counter()
        self.recordings: dict[torch.Size, Recording] = {}
        # Shared, as graphs follow one another. A new one: no graph may join one that all have left.
        self.pool = torch.cuda.graph_pool_handle()

    def step(self, parts: Parts, position: Tensor, seeds: Seeds) -> Output:
        """Train one step, see :func:`plain_step`; what it returns is valid until the next step."""
        with torch.cuda.device(self.device):  # the current device is one of the thread
            if self.num_plain[position.shape] < WARM_UP:
                self.num_plain[position.shape] += 1
                return self._plainly(parts, position, seeds)
            if position.shape not in self.recordings:
                self.recordings[position.shape] = self._record(parts, position)
            return self._replay(self.recordings[position.shape], position, seeds)

    def _plainly(self, parts: Parts, position: Tensor, seeds: Seeds) -> Output:
        """On the stream of the recordings, so that its libraries have their memory."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            output = plain_step(parts, position, seeds)
        current.wait_stream(self.stream)
        return output

    def _record(self, parts: Parts, position: Tensor) -> Recording:
        position = position.clone()
        torch.cuda.current_blas_handle()  # of this thread; none can be made during a recording
        made: list[Batch] = []
        graphs = [torch.cuda.CUDAGraph() for _ in position]
        for place, graph in enumerate(graphs):
            with self._recorded(graph):
                made.append(parts.batch(place, position[place]))
        learn = torch.cuda.CUDAGraph()
        with self._recorded(learn):
            output = parts.learn(made)
        return Recording(position, graphs, made, learn, output)

    @contextmanager
    def _recorded(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        current = torch.cuda.current_stream()
        try:
            # Not "global": threads of loggers may use the device meanwhile.
            with torch.cuda.graph(graph, self.pool, self.stream, "thread_local"):
                yield
        except BaseException:
            # torch stays on the stream of a recording whose end fails; evaluations, in threads of
            # their own, would not wait for steps there.
            torch.cuda.set_stream(current)
            raise

    def _replay(self, recording: Recording, position: Tensor, seeds: Seeds) -> Output:
        recording.position.copy_(position)
        for seed, graph in zip(seeds.batches, recording.batches, strict=True):
            sampling.seed(seed, self.device)
            graph.replay()
        if seeds.dropout is not None:
            sampling.seed(seeds.dropout, self.device)
        recording.learn.replay()
        return recording.output


def plain_step(parts: Parts, position: Tensor, seeds: Seeds) -> Output:
    """Train one step without a recording.

    Args:
        parts: of the step.
        position: ``(num_seeds, batch)``.
        seeds: of the step.

    Returns:
        Losses and terms.
    """
    made = []
    for place, seed in enumerate(seeds.batches):
        sampling.seed(seed, position.device)
        made.append(parts.batch(place, position[place]))
    if seeds.dropout is not None:
        sampling.seed(seeds.dropout, position.device)
    return parts.learn(made)
