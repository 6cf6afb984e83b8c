"""Several runs trained as one: a training step of all of them is one batched step.

Runs that are trained together differ in seeds, in the numbers of ``VECTORS`` and in the settings of
Adam alone. Their weights are stacked (see :mod:`twotower.training.fused.stack`), the step is
``torch.vmap`` of the step of one run, and the gradient is that of the sum of their losses, in which
each run's weights occur in its own loss alone.

- **Batches**: each seed has its own order, negatives and step seeds, those that it has alone. Runs
  of equal seed share its batches. Batches are padded to one shape, which no loss reads.
- **Dropout** draws for each run separately, and not what the run would draw alone.
- **A weight of 0** beside runs with a larger one: the term is computed for all, and its gradient
  multiplied by 0. What only that term trains stays as it is in the run, as it does alone.

On a GPU a step of many runs takes little longer than that of one, as kernels are larger but not
more; on a CPU nothing is gained.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from twotower.data import sampling
from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.training.fused.adam import StackedAdam, clipped
from twotower.training.fused.limits import why_not
from twotower.training.fused.recording import Output, Parts, Recorder, Seeds, plain_step
from twotower.training.fused.stack import Stack
from twotower.training.task import RetrievalTask
from twotower.types import Batch, LossOutput, TrainIndex

VECTORS = ("lambda1", "lambda2", "lambda3", "temperature")  # may differ between the runs' losses


class Step(nn.Module):
    """Model and loss of one run, under the names that they have in a task."""

    def __init__(self, task: RetrievalTask) -> None:
        super().__init__()
        self.model, self.loss = task.model, task.loss

    def forward(self, batch: Batch, numbers: dict[str, Tensor]) -> Output:
        """The loss of a batch and its terms.

        Args:
            batch: of one run.
            numbers: settings of the loss that replace its own, by dotted name, each a scalar.
        """
        before = {name: self._set(name, value) for name, value in numbers.items()}
        try:
            output: LossOutput = self.loss(self.model(batch), batch)  # type: ignore[misc]
        finally:
            for name, value in before.items():
                self._set(name, value)
        return output.total, output.terms

    def _set(self, name: str, value: Any) -> Any:
        place, _, last = name.rpartition(".")
        owner = self.get_submodule(place)
        before = getattr(owner, last)
        setattr(owner, last, value)
        return before


class FusedRuns:
    """Trains runs of equal structure in one pass.

    Args:
        tasks: one per run, with their models where they are trained; after each step they have the
            new weights, see :class:`Stack`.
        data: one per run; those of equal seed may be the same object.
        optimizers: one per run, over its model's parameters.
        context: makes the context of model and loss, as a precision plugin of Lightning does.
        clip: largest gradient and ``norm`` or ``value``, as ``trainer.gradient_clip_val`` and
            ``gradient_clip_algorithm``, for each run by itself; None: no limit.
        record: replay recorded steps, on an NVIDIA GPU.

    Attributes:
        total: ``(num_runs,)`` losses of the last step trained.
        terms: their terms ``(num_runs,)``; those of run ``i`` are its own loss's alone, see the
            loss's ``terms``.
        mean_total: ``(num_runs,)`` mean losses of the steps of the last call of :meth:`train`.

    Raises:
        UserError: for models and optimizers that cannot be trained in one pass.
    """

    total: Tensor
    terms: dict[str, Tensor]
    mean_total: Tensor

    def __init__(
        self,
        tasks: Sequence[RetrievalTask],
        data: Sequence[RetrievalDataModule],
        optimizers: Sequence[Optimizer],
        *,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        clip: tuple[float, str] | None = None,
        record: bool = False,
    ) -> None:
        for run in zip(tasks, data, optimizers, strict=True):
            if reason := why_not(*run):
                raise UserError(f"a run cannot be trained in one pass: {reason}")
        self.own_terms: list[set[str]] = [getattr(task.loss, "terms", set()) for task in tasks]
        self.seeds = sorted({one.seed for one in data})
        self.data = {one.seed: one for one in data}
        self.context = context
        self.clip = clip
        self.device = next(iter(tasks[0].model.parameters())).device
        self.seed_of_run = [self.seeds.index(one.seed) for one in data]
        for one in self.data.values():
            one.fixed_shapes = True
        self.optimizers = optimizers
        self.steps = [Step(task) for task in tasks]
        with sampling.kept_generators(self.device):
            trained = self._probe()
        first = self.data[self.seeds[0]]
        for one in data:
            one.share_tables(first)
        # Recorded steps read them at this place.
        self._kept = (first.tables, first._train_pairs)
        self.stack = Stack(self.steps)
        self.numbers = self._numbers()
        self.optimizer = StackedAdam(self.stack.parameters, optimizers, trained, record)
        self.template = copy.deepcopy(self.steps[0]).train()
        if any(self.own_terms):
            self.template.loss.terms = set().union(*self.own_terms)  # type: ignore[union-attr]
        self.recorder = Recorder(self.device) if record else None

    @torch.enable_grad()
    def train(
        self,
        steps: Sequence[Sequence[TrainIndex]],
        after_step: Callable[[], object] | None = None,
        dropout_seeds: Sequence[int] | None = None,
    ) -> None:
        """Train consecutive steps.

        Args:
            steps: of each step one index for each of ``seeds``.
            after_step: called after each step but the last.
            dropout_seeds: of each step, see :class:`Seeds`.
        """
        parts = Parts(self.batch, self.learn)
        summed = torch.zeros(len(self.steps), device=self.device, dtype=torch.double)
        positions = self._positions(steps)
        for number, (row, position) in enumerate(zip(steps, positions, strict=True)):
            if number > 0 and after_step is not None:
                after_step()
            outdated = self.optimizer.refresh()
            dropout = None if dropout_seeds is None else dropout_seeds[number]
            seeds = Seeds([index.seed for index in row], dropout)
            if self.recorder is None:
                total, terms = plain_step(parts, position, seeds)
            else:
                if outdated:
                    self.recorder.forget()
                total, terms = self.recorder.step(parts, position, seeds)
            summed += total
        self.mean_total = summed / len(steps)
        # A replay overwrites its output.
        self.total = total.clone()
        self.terms = {name: term.clone() for name, term in terms.items()}

    def names_of_terms(self, run: int) -> list[str]:
        """The terms of a run's own loss; others may be computed for it with a weight of 0."""
        weighted: set[str] = set().union(*self.own_terms)
        return [name for name in self.terms if name not in weighted - self.own_terms[run]]

    def _positions(self, steps: Sequence[Sequence[TrainIndex]]) -> list[Tensor]:
        """``(num_seeds, batch)`` of each step on the device, copied there at once."""
        positions = [torch.stack([index.position for index in row]) for row in steps]
        made: list[Tensor] = []
        for _, alike in itertools.groupby(positions, lambda position: position.shape):
            made.extend(torch.stack(list(alike)).to(self.device).unbind())
        return made

    def batch(self, place: int, position: Tensor) -> Batch:
        """A batch of one of ``seeds``, drawn with the generators as they are."""
        index = TrainIndex(position, 0, num_rows=self.num_rows)
        return self.data[self.seeds[place]].train_batch(index, seeded=True)

    def learn(self, batches: Sequence[Batch]) -> Output:
        """One step of all runs on the batch of each of ``seeds``."""

        def of_runs(*values: Any) -> Any:
            if not isinstance(values[0], Tensor):
                return values[0]
            chosen = [values[place] for place in self.seed_of_run]
            return torch.stack(chosen) if len(chosen) > 1 else chosen[0][None]

        total, terms = self.losses(tree_map(of_runs, *batches))
        trained = self.optimizer.parameters
        # Not ``backward``: gradients need no memory between steps and no addition to old ones.
        made = torch.autograd.grad(total.sum(), list(trained.values()))
        gradients = dict(zip(trained, made, strict=True))
        if self.clip is not None:
            gradients = clipped(gradients, *self.clip)
        self.optimizer.step(gradients)
        return total.detach(), {name: term.detach() for name, term in terms.items()}

    def losses(self, batch: Batch) -> Output:
        """``(num_runs,)`` losses and terms of stacked batches."""

        def one(parameters: Any, buffers: Any, batch: Batch, numbers: Any) -> Output:
            state = (parameters, buffers)
            return functional_call(self.template, state, (batch, numbers))  # type: ignore[no-any-return]

        given = (self.stack.parameters, self.stack.buffers, batch, self.numbers)
        dims = tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, given)
        with self.context():
            return torch.vmap(one, dims, randomness="different")(*given)

    def loaders(self) -> list[Any]:
        """A training loader for each of ``seeds``."""
        return [self.data[seed].train_dataloader() for seed in self.seeds]

    def _numbers(self) -> dict[str, Tensor]:
        """Settings of the losses that differ between runs, each ``(num_runs,)``."""
        numbers = {}
        dtype = next(iter(self.stack.parameters.values())).dtype
        for place, module in self.steps[0].named_modules():
            for last in VECTORS:
                if not hasattr(module, last):
                    continue
                values = [getattr(step.get_submodule(place), last) for step in self.steps]
                if len(set(values)) > 1:
                    numbers[f"{place}.{last}"] = torch.tensor(
                        values, dtype=dtype, device=self.device
                    )
        return numbers

    def _probe(self) -> list[set[str]]:
        """Names of the parameters that each run trains when it is alone.

        It also gives buffers that a first step creates their shapes.
        """
        found: dict[frozenset[str], tuple[set[str], dict[str, Tensor]]] = {}
        index = next(iter(self.loaders()[0]))
        self.num_rows = index.num_rows  # of all batches
        batch = self.batch(0, index.position.to(self.device))
        trained = []
        for step, terms in zip(self.steps, self.own_terms, strict=True):
            key = frozenset(terms)
            if key not in found:
                alone = copy.deepcopy(step).train()
                with self.context():
                    total, _ = alone(batch, {})
                total.backward()
                names = {name for name, p in alone.named_parameters() if p.grad is not None}
                names = {name for name in names if name.startswith("model.")}
                found[key] = names, dict(alone.named_buffers())
            trained.append(found[key][0])
        for step in self.steps:
            for _, buffers in found.values():
                for name, buffer in buffers.items():
                    if step.get_buffer(name).dim() < buffer.dim():
                        place, _, last = name.rpartition(".")
                        setattr(step.get_submodule(place), last, torch.zeros_like(buffer))
        return trained


def indices(loaders: Sequence[Any]) -> Iterator[list[TrainIndex]]:
    """The steps of the loaders' current epoch, one index of each loader at a time."""
    for row in zip(*loaders, strict=True):
        yield list(row)
