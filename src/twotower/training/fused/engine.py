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
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.training.fused.adam import StackedAdam
from twotower.training.fused.stack import Stack
from twotower.training.task import RetrievalTask
from twotower.types import Batch, LossOutput, TrainIndex

VECTORS = ("lambda1", "lambda2", "lambda3", "temperature")  # may differ between the runs' losses


class Step(nn.Module):
    """Model and loss of one run, under the names that they have in a task."""

    def __init__(self, task: RetrievalTask) -> None:
        super().__init__()
        self.model, self.loss = task.model, task.loss

    def forward(self, batch: Batch, numbers: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
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

    Raises:
        UserError: for models and optimizers that cannot be trained in one pass.
    """

    def __init__(
        self,
        tasks: Sequence[RetrievalTask],
        data: Sequence[RetrievalDataModule],
        optimizers: Sequence[Optimizer],
    ) -> None:
        _check(tasks)
        self.terms: list[set[str]] = [getattr(task.loss, "terms", set()) for task in tasks]
        self.seeds = sorted({one.seed for one in data})
        self.data = {one.seed: one for one in data}
        self.seed_of_run = torch.tensor([self.seeds.index(one.seed) for one in data])
        for one in self.data.values():
            one.fixed_shapes = True
        self.device = next(iter(tasks[0].model.parameters())).device
        self.steps = [Step(task) for task in tasks]
        trained = self._probe()
        self.stack = Stack(self.steps)
        self.numbers = self._numbers()
        self.optimizer = StackedAdam(self.stack.parameters, optimizers, trained)
        self.template = copy.deepcopy(self.steps[0]).train()
        if any(self.terms):
            self.template.loss.terms = set().union(*self.terms)  # type: ignore[union-attr]

    def batches(self, indices: Sequence[TrainIndex]) -> Batch:
        """The batch of each seed, stacked by run.

        Args:
            indices: one for each of ``seeds``.
        """
        made = []
        for seed, index in zip(self.seeds, indices, strict=True):
            index = index._replace(position=index.position.to(self.device))
            made.append(self.data[seed].train_batch(index))
        which = self.seed_of_run.to(self.device)

        def stacked(*values: Any) -> Any:
            if isinstance(values[0], Tensor):
                return torch.stack(values).index_select(0, which)
            return values[0]

        return tree_map(stacked, *made)  # type: ignore[no-any-return]

    def step(self, indices: Sequence[TrainIndex]) -> tuple[Tensor, dict[str, Tensor]]:
        """Train one step.

        Args:
            indices: one for each of ``seeds``.

        Returns:
            ``(num_runs,)`` losses, and each term ``(num_runs,)``; the terms of run ``i`` are those
            of its own loss alone, see ``terms``.
        """
        batch = self.batches(indices)
        total, terms = self.losses(batch)
        for whole in self.stack.parameters.values():
            whole.grad = None
        total.sum().backward()
        self.optimizer.step()
        return total.detach(), {name: term.detach() for name, term in terms.items()}

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """``(num_runs,)`` losses and terms of stacked batches."""

        def one(
            parameters: Any, buffers: Any, batch: Batch, numbers: Any
        ) -> tuple[Tensor, dict[str, Tensor]]:
            state = (parameters, buffers)
            return functional_call(self.template, state, (batch, numbers))  # type: ignore[no-any-return]

        given = (self.stack.parameters, self.stack.buffers, batch, self.numbers)
        dims = tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, given)
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
        batch = self.data[self.seeds[0]].train_batch(
            index._replace(position=index.position.to(self.device))
        )
        trained = []
        for step, terms in zip(self.steps, self.terms, strict=True):
            key = frozenset(terms)
            if key not in found:
                alone = copy.deepcopy(step).train()
                alone(batch, {})[0].backward()
                names = {name for name, p in alone.named_parameters() if p.grad is not None}
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


def _check(tasks: Sequence[RetrievalTask]) -> None:
    for task in tasks:
        if any(isinstance(module, nn.RNNBase) for module in task.model.modules()):
            raise UserError(
                "runs with model/history=gru cannot be trained in one pass: "
                "recurrent kernels take the weights of one model"
            )
        if any(getattr(p, "row_sparse", False) for p in task.model.parameters()):
            raise UserError("runs with row-sparse tables cannot be trained in one pass")
