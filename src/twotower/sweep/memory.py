"""Measures how many runs fit into a GPU's memory in one pass."""

import gc
from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import extra
from twotower.run.build import build, build_part, seed_everything
from twotower.sweep.measure import short_trainer
from twotower.training.fused.engine import FusedRuns, indices
from twotower.training.fused.steps import clip_of
from twotower.training.task import RetrievalTask

SHARE = 0.8  # of the free memory; the rest is for evaluation and for what fragments leave
NUM_STEPS = 2  # the second one has the state of Adam


def runs_that_fit(configs: Sequence[DictConfig], prepares: bool = True) -> int | None:
    """How many runs of one shape fit, from the peaks of a pass of one and of two of them.

    Args:
        configs: of two or more runs, as they are composed.
        prepares: False: data that are not prepared are left so, and nothing is measured.

    Returns:
        1 or more; None where nothing can be measured, as without CUDA.
    """
    if not torch.cuda.is_available():
        return None
    with extra("the measurement of the runs that fit into the GPU's memory is"):  # they say why
        if not prepares and not build_part(configs[0], "data").preparation.folder.exists():
            return None
        some = [configs[0], configs[-1]]  # of two seeds, if there are two
        _release()
        free, _ = torch.cuda.mem_get_info()
        try:
            return extrapolated(lambda num: _peak(some[:num]), len(configs), SHARE * free)
        finally:
            _release()
    return None


def extrapolated(peak: Callable[[int], int], wanted: int, available: float) -> int:
    """The number of runs that need ``available`` bytes, 1 if two do not fit.

    Args:
        peak: bytes of a pass of so many runs.
        wanted: number of runs; if they fit for sure, two runs need not be measured.
        available: bytes.
    """
    one = peak(1)
    if one * wanted <= available:
        return wanted
    try:
        two = peak(2)
    except torch.cuda.OutOfMemoryError:
        return 1
    each = max(two - one, 1)
    return max(1, 1 + int((available - one) // each))


def _peak(configs: Sequence[DictConfig]) -> int:
    """Bytes on the GPU that a few steps of these runs need at most, their data included."""
    _release()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    take_steps(configs, "cuda")
    return torch.cuda.max_memory_allocated() - before


def take_steps(configs: Sequence[DictConfig], device: str) -> None:
    """Train a few steps of runs in one pass; recorded ones need as much."""
    built = [_built(config.copy(), device) for config in configs]
    trainers, *parts = (list(parts) for parts in zip(*built, strict=True))
    context = trainers[0].precision_plugin.train_step_context
    runs = FusedRuns(*parts, context=context, clip=clip_of(trainers[0]))
    for _, index in zip(range(NUM_STEPS), indices(runs.loaders()), strict=False):
        runs.train([index])


def _built(
    config: DictConfig, device: str
) -> tuple[pl.Trainer, RetrievalTask, RetrievalDataModule, torch.optim.Optimizer]:
    """The parts of a run; settings of its config that are null get their values."""
    trainer = short_trainer(config, [])
    seed_everything(config.seed)
    data, task = build(config, None, trainer)
    trainer.precision_plugin.convert_module(task)  # 64-true takes twice the memory
    task.to(device)
    return trainer, task, data, build_part(config, "optimizer")(task.model.parameters())


def _release() -> None:
    gc.collect()
    torch.cuda.empty_cache()
