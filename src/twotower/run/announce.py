"""Lines before and after a training: what it works on, and what to know before trusting it."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from twotower.data.datamodule import RetrievalDataModule
from twotower.processes import available_cores
from twotower.training.task import RetrievalTask
from twotower.types import RunInfo
from twotower.wording import shown_path, warn

FEW_STEPS = 50  # of an epoch: patience and validation count epochs
MANY_COLD = 0.5  # share of the validation targets, which choose the epoch
COLLAPSED = 0.95  # mean cosine of two items' vectors


def print_start(
    info: RunInfo, data: RetrievalDataModule, task: RetrievalTask, trainer: pl.Trainer, folder: Path
) -> None:
    """Print model, data, sizes, device and folder, each on one line."""
    model, name = info.choices["model"], info.choices["data"]
    schema, positions = data.schema, data.tables["position/train"]
    sizes = f"{data.meta['num_users']:,} users, {schema.num_items:,} items"
    targets = ", ".join(
        f"{int(data.tables[f'targets/{part}'].sum()):,} {part} targets" for part in ("val", "test")
    )
    print(f"{name}: {sizes}, {len(positions):,} training interactions, {targets}")
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    steps = len(data.train_dataloader())
    print(f"{model}: {parameters:,} parameters, batch {data.batch_size}, {steps:,} steps an epoch")
    device = trainer.strategy.root_device
    where = f"threads: {torch.get_num_threads()}, cores: {available_cores()}"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    print(f"processes: {trainer.world_size} on {device.type}, {where}")
    print(f"folder {shown_path(folder)}", flush=True)


def warn_of_data(data: RetrievalDataModule) -> None:
    """Warn of few steps an epoch, and of validation targets that training never saw."""
    steps = len(data.train_dataloader())
    if steps < FEW_STEPS:
        warn(
            f"an epoch has {steps} steps: lower data.batch_size={data.batch_size}, or raise "
            "trainer.max_epochs and callbacks.early_stopping.patience"
        )
    position, counts = (data.tables[f"{name}/val"].long() for name in ("position", "targets"))
    if not len(position):
        return
    first = torch.repeat_interleave(position, counts)
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    targets = first + torch.arange(len(first)) - start  # positions of all validation targets
    items = data.tables["interactions/item"][targets]
    cold = (items >= data.schema.num_train_items).float().mean().item()
    if cold > MANY_COLD:
        warn(
            f"{cold:.0%} of the validation targets are items without training interactions, and "
            "they choose the epoch: look at val/warm, or change data/split"
        )


def warn_of_result(record: dict[str, Any], monitor: str) -> None:
    """Warn of a model that is not above popularity, and of item vectors that are all alike."""
    metric = monitor.rpartition("/")[2]
    own, popular = (record[part].get(metric) for part in ("test", "popularity"))
    if (
        own is not None
        and popular is not None
        and own <= popular
        and record["model"] != "popularity"
    ):
        warn(
            f"the model is not above popularity: test {metric} {own:.4f}, popularity {popular:.4f}"
        )
    cosine = record["test"].get("item_cosine", 0.0)
    if cosine > COLLAPSED:
        warn(
            f"two item vectors have a cosine of {cosine:.2f} on average: the items are hardly told "
            "apart; try model.hidden_dims=[], a lower optimizer.lr or model.dropout"
        )
