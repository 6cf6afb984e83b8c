"""Compares the first steps of fused runs with those of the same runs alone, without a trace."""

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from twotower.data import sampling
from twotower.optimizers.row_sparse import clip_gradients
from twotower.training.fused.engine import FusedRuns, Step, indices
from twotower.training.fused.recording import WARM_UP, Recorder
from twotower.types import TrainIndex

NUM_STEPS = WARM_UP + 2  # the last ones are replays, where steps are recorded


# Largest difference of two updates of all weights, over the size of one. It is not small, as Adam
# divides by their own size even gradients that would be zero but for rounding.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 0.05}
TOLERANCE_16 = 0.25  # where factors are rounded to TF32 or bfloat16


def prove(fused: FusedRuns) -> str | None:
    """Why fused runs cannot be trusted, or None if they train as each run does alone.

    A model with dropout draws otherwise than alone: its steps are compared with the same steps
    without a recording. Weights, the optimizers' state and random generators are as before; a
    recording is kept.

    Args:
        fused: before it trains.
    """
    rows = list(itertools.islice(indices(fused.loaders()), NUM_STEPS))
    full = [row for row in rows if len(row[0].position) == len(rows[0][0].position)]
    steps = list(itertools.islice(itertools.cycle(full), NUM_STEPS))
    # On the host: a pass may fill the device's memory.
    kept = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in _state(fused)]
    with sampling.kept_generators(fused.device):
        try:
            return _difference(fused, steps, kept, _tolerance(fused))
        except (RuntimeError, AssertionError) as error:
            return f"a step fails: {_cause(error)}"
        finally:
            _restore(kept)


def _cause(error: BaseException) -> str:
    """The first error of several. No name in ``prove`` may keep it, and with it all weights."""
    while error.__context__ is not None:  # the end of a failed recording fails as well
        error = error.__context__
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _difference(
    fused: FusedRuns,
    steps: list[list[TrainIndex]],
    kept: Sequence[tuple[Tensor, Tensor]],
    tolerance: float,
) -> str | None:
    num_runs = len(fused.steps)
    runs = sorted({0, num_runs // 2, num_runs - 1})
    before = [_weights(fused.steps[run]) for run in runs]
    if _draws(fused, steps[0]):
        recorder, fused.recorder = fused.recorder, None
        fused.train(steps)
        fused.recorder = recorder
        expected = [(fused.mean_total[run], _weights(fused.steps[run])) for run in runs]
        _restore(kept)
    else:
        expected = [_alone(fused, run, steps) for run in runs]
    fused.train(steps)
    for run, start, (loss, weights) in zip(runs, before, expected, strict=True):
        ours = fused.mean_total[run]
        if not (ours - loss).abs() <= tolerance / 10 * loss.abs():
            return f"the loss of run {run} is {ours.item():.6g}, and {loss.item():.6g} without"
        update = (weights - start).norm()
        error = (_weights(fused.steps[run]) - weights).norm()
        if not error <= tolerance * update:
            return f"the weights of run {run} differ by {(error / update).item():.2g} of an update"
    return None if fused.recorder is None else _of_batches(fused, fused.recorder, steps[-1])


def _of_batches(fused: FusedRuns, recorder: Recorder, row: list[TrainIndex]) -> str | None:
    """A replay draws the batches of a plain step, to the last bit."""
    recording = recorder.recordings[torch.Size([len(row), len(row[0].position)])]
    for place, (index, made) in enumerate(zip(row, recording.made, strict=True)):
        sampling.seed(index.seed, fused.device)
        expected = fused.batch(place, index.position.to(fused.device))
        for ours, theirs in zip(tree_leaves(made), tree_leaves(expected), strict=True):
            if isinstance(ours, Tensor) and not torch.equal(ours, theirs):
                return f"the recorded batch of seed {fused.seeds[place]} is another one"
    return None


def _tolerance(fused: FusedRuns) -> float:
    rounds = torch.get_float32_matmul_precision() != "highest"
    dtype = next(iter(fused.stack.parameters.values())).dtype
    return TOLERANCE_16 if rounds else TOLERANCE.get(dtype, TOLERANCE_16)


def _alone(fused: FusedRuns, run: int, steps: list[list[TrainIndex]]) -> tuple[Tensor, Tensor]:
    """Mean loss and weights of a run that is trained as it is alone."""
    step = copy.deepcopy(fused.steps[run]).train()
    parameters = list(step.model.parameters())
    optimizer = _copy(fused.optimizers[run], parameters)
    place, losses = fused.seed_of_run[run], []
    data = fused.data[fused.seeds[place]]
    data.fixed_shapes = False
    try:
        for row in steps:
            index = row[place]
            batch = data.train_batch(index._replace(position=index.position.to(fused.device)))
            with fused.context():
                total, _ = step(batch, {})
            optimizer.zero_grad()
            total.backward()
            if fused.clip is not None:
                clip_gradients(parameters, *fused.clip)
            optimizer.step()
            losses.append(total.detach().double())
    finally:
        data.fixed_shapes = True
    return torch.stack(losses).mean(), _weights(step)


def _copy(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Optimizer:
    made = type(optimizer)(parameters)  # type: ignore[call-arg]  # the state has the settings
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return made


def _draws(fused: FusedRuns, row: Sequence[TrainIndex]) -> bool:
    """Does a model's loss of one batch depend on the generators?"""
    batch = fused.batch(0, row[0].position.to(fused.device))
    totals = []
    for seed in (0, 1):
        sampling.seed(seed, fused.device)
        with torch.no_grad(), fused.context():
            totals.append(copy.deepcopy(fused.steps[0]).train()(batch, {})[0])
    return not torch.allclose(totals[0], totals[1], rtol=1e-5)


def _state(fused: FusedRuns) -> list[Tensor]:
    """All tensors that a step changes."""
    optimizer, stack = fused.optimizer, fused.stack
    named = (stack.parameters, stack.buffers, optimizer.mean, optimizer.square)
    return [optimizer.num_steps, *itertools.chain(*(tensors.values() for tensors in named))]


@torch.no_grad()
def _restore(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in kept:
        tensor.copy_(value)


def _weights(step: Step) -> Tensor:
    """All weights of a run's model in one vector."""
    return torch.cat([weight.detach().flatten().double() for weight in step.model.parameters()])
