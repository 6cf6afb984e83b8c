"""Settings that depend on the size of the data: ``null`` in ``conf/`` stands for these rules."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EarlyStopping

from twotower.data.datamodule import RetrievalDataModule
from twotower.run.checkpoint.saved_config import put, select
from twotower.run.settings import DERIVED

STEPS = 100  # of an epoch, at least, where the smallest batch allows it
SMALLEST_BATCH, LARGEST_BATCH = 32, 512  # of all processes together
MANY = 50_000  # training interactions that need none of what follows
EPOCHS, PATIENCE = 10, 3
LONGEST = 4  # times as many EPOCHS and as much PATIENCE on few interactions
TEMPERATURE, HIGHEST = 0.07, 0.3  # less sharp scores overfit less

Config = DictConfig | dict[str, Any]


def unset(config: Config) -> list[str]:
    """Dotted names of the settings that are to be derived."""
    found = []
    for key in DERIVED:
        parent, _, name = key.rpartition(".")
        node = select(config, parent)
        if isinstance(node, Mapping) and name in node and node[name] is None:
            found.append(key)
    return found


def fill(config: Config, num_positives: int, num_processes: int = 1) -> dict[str, Any]:
    """Put a value in place of each null.

    Args:
        config: as composed, or as plain values.
        num_positives: training interactions.
        num_processes: that share a batch.

    Returns:
        The new values by dotted name.
    """
    values = rules(num_positives, num_processes)
    found = {key: values[key] for key in unset(config)}
    for key, value in found.items():
        put(config, key, value)
    return found


def derive(
    config: Config, data: RetrievalDataModule, trainer: pl.Trainer | None = None
) -> dict[str, Any]:
    """Put a value in place of each null: in the config, in the data and in the trainer.

    Args:
        config: see :func:`fill`.
        data: set up. Its size decides.
        trainer: of the training; built before the data, so that its errors come first.

    Returns:
        See :func:`fill`.
    """
    num_processes = trainer.world_size if trainer is not None else 1
    found = fill(config, len(data.tables["position/train"]), num_processes)
    data.batch_size = found.get("data.batch_size", data.batch_size)
    if trainer is not None and "trainer.max_epochs" in found:
        trainer.fit_loop.max_epochs = found["trainer.max_epochs"]
    if trainer is not None and "callbacks.early_stopping.patience" in found:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.patience is None:
                callback.patience = found["callbacks.early_stopping.patience"]
    return found


def rules(num_positives: int, num_processes: int = 1) -> dict[str, Any]:
    """Values by dotted name.

    Args:
        num_positives: training interactions.
        num_processes: that share a batch.
    """
    batch = LARGEST_BATCH
    while batch > SMALLEST_BATCH and num_positives < STEPS * batch:
        batch //= 2
    times_fewer = MANY / min(max(num_positives, 1), MANY)  # than many
    longer = min(times_fewer, LONGEST)
    temperature = min(TEMPERATURE * math.sqrt(times_fewer), HIGHEST)
    return {
        "data.batch_size": max(batch // num_processes, 1),
        "model.hidden_dims": [256, 128] if num_positives >= MANY else [],
        "loss.task.temperature": round(temperature, 2),
        "trainer.max_epochs": round(EPOCHS * longer),
        "callbacks.early_stopping.patience": round(PATIENCE * longer),
    }
