"""Settings that depend on the size of the data: ``null`` in ``conf/`` stands for these rules."""

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
MANY = 50_000  # training interactions; below, towers are linear and scores less sharp
EPOCHS, PATIENCE = 10, 3
MOST = 4  # times as many EPOCHS and as much PATIENCE on few interactions

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


def fill(config: Config, data: RetrievalDataModule, trainer: pl.Trainer | None = None) -> bool:
    """Put a value in place of each null: in the config, in the data and in the trainer.

    Args:
        config: as composed, or as plain values.
        data: set up. Its size decides.
        trainer: of the training; built before the data, so that its errors come first.

    Returns:
        Whether there was any.
    """
    num_positives = len(data.tables["position/train"])
    num_processes = trainer.world_size if trainer is not None else 1
    values = rules(num_positives, num_processes)
    keys = unset(config)
    for key in keys:
        put(config, key, values[key])
        if key == "data.batch_size":
            data.batch_size = values[key]
        elif key == "trainer.max_epochs" and trainer is not None:
            trainer.fit_loop.max_epochs = values[key]
        elif key == "callbacks.early_stopping.patience" and trainer is not None:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EarlyStopping):
                    callback.patience = values[key]
    return bool(keys)


def rules(num_positives: int, num_processes: int = 1) -> dict[str, Any]:
    """Values by dotted name.

    Args:
        num_positives: training interactions.
        num_processes: that share a batch.
    """
    batch = LARGEST_BATCH
    while batch > SMALLEST_BATCH and num_positives < STEPS * batch:
        batch //= 2
    longer = min(max(MANY / max(num_positives, 1), 1), MOST)
    return {
        "data.batch_size": max(batch // num_processes, 1),
        "model.hidden_dims": [256, 128] if num_positives >= MANY else [],
        "loss.task.temperature": 0.07 if num_positives >= MANY else 0.2,
        "trainer.max_epochs": round(EPOCHS * longer),
        "callbacks.early_stopping.patience": round(PATIENCE * longer),
    }
