"""Measures a few steps of runs that have not run yet, for the plan of a sweep."""

import time
from collections.abc import Hashable
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from twotower.errors import UserError
from twotower.run.build import build, build_part, seed_everything
from twotower.run.cli import explain
from twotower.sweep.plan import UNPREPARED, Run, variant_of
from twotower.training.threads import StepThreads
from twotower.wording import one_line

NUM_STEPS = 20
SHORT = {  # settings of the trainer
    "max_epochs": 1,
    "max_steps": -1,
    "limit_train_batches": NUM_STEPS,
    "limit_val_batches": 1,
    "check_val_every_n_epoch": 1,
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "logger": False,
}
LIMIT_S = 60.0  # for all variants; those that come later have no measurement


def measure_seconds(runs: list[Run]) -> tuple[list[float | None], str]:
    """How long each run may take, from a few steps and a part of the validation of each variant.

    Returns:
        Seconds for each run, None where there was nothing to measure, and the first reason for it.
    """
    began, reason = time.perf_counter(), ""
    found: dict[Hashable, float | None] = {}
    for run in runs:
        variant = variant_of(run.overrides)
        if variant in found or time.perf_counter() - began > LIMIT_S:
            continue
        try:
            found[variant] = _seconds(run.config)
        except Exception as error:  # the plan is shown all the same, and the run names it again
            found[variant] = None
            reason = reason or explain(error) or f"{type(error).__name__}: {one_line(error)}"
    return [found.get(variant_of(run.overrides)) for run in runs], reason


class _Clock(Callback):
    """Moments of a short training and of the first batch of its validation."""

    def __init__(self) -> None:
        self.steps: list[float] = []  # their ends
        self.validation: list[float] = []  # its start, the start and the end of its first batch

    def step_seconds(self) -> float:
        """Of the second half of the steps: the first ones are slower."""
        late = self.steps[len(self.steps) // 2 :]
        return (late[-1] - late[0]) / max(1, len(late) - 1)

    def validation_seconds(self, num_batches: int) -> float:
        """Of the items' vectors and all batches of users."""
        if len(self.validation) < 3:  # no validation targets
            return 0.0
        began, first, end = self.validation
        return first - began + (end - first) * num_batches

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.steps.append(_now())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation = [_now()]

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.validation.append(_now())

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.validation.append(_now())


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(config: DictConfig) -> float:
    """Seconds of the training of one run, its validations and its test.

    Raises:
        UserError: for data that are not prepared, and trainings without steps or an end.
    """
    settings = config.trainer
    if not build_part(config, "data").preparation.folder.exists():
        raise UserError(UNPREPARED)
    if settings.max_epochs == -1 and settings.max_steps == -1:
        raise UserError("trainer.max_epochs=-1 has no end")
    clock = _Clock()
    trainer = short_trainer(config, [StepThreads(), clock])
    seed_everything(config.seed)
    data, task = build(config, None, trainer)
    trainer.fit_loop.max_epochs = 1  # again: the derived number is in the config, for the estimate
    if hasattr(task.model, "fit"):
        raise UserError("a model that is fitted in closed form has no steps")
    steps_per_epoch = len(data.train_dataloader())
    trainer.fit(task, data)
    limits = [steps_per_epoch * settings.max_epochs, settings.max_steps]
    steps = min(limit for limit in limits if limit >= 0)  # -1: no limit
    epochs = steps / steps_per_epoch
    num_validations = epochs / (settings.check_val_every_n_epoch or 1) + 2  # the test, popularity
    validation = clock.validation_seconds(len(data.val_dataloader()))
    return float(steps * clock.step_seconds() / _processes(settings) + num_validations * validation)


def short_trainer(config: DictConfig, callbacks: list[Callback]) -> pl.Trainer:
    """A trainer of a few steps, with the run's own precision and accelerator."""
    kept = {key: value for key, value in config.trainer.items() if key not in SHORT}
    trainer: pl.Trainer = build_part({"trainer": kept}, "trainer", callbacks=callbacks, **SHORT)
    return trainer


def _processes(settings: DictConfig) -> int:
    devices = settings.devices if isinstance(settings.devices, int) else 1
    return max(1, devices * int(settings.num_nodes))
