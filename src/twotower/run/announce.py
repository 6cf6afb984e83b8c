"""Lines before and after a training: what it works on, and what to know before trusting it."""

import math
import textwrap
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from twotower.data.datamodule import RetrievalDataModule
from twotower.processes import available_cores
from twotower.training.run_info import RunInfo
from twotower.training.task import RetrievalTask
from twotower.wording import shown_path, warn

FEW_STEPS = 50  # of an epoch: patience and validation count epochs
MANY_COLD = 0.5  # share of the validation targets, which choose the epoch
COLLAPSED = 0.95  # mean cosine of two items' vectors


def print_start(
    info: RunInfo,
    data: RetrievalDataModule,
    task: RetrievalTask,
    trainer: pl.Trainer,
    folder: Path,
    derived: dict[str, Any],
) -> None:
    """Print model, data, sizes, derived settings, device and folder, in 80 columns."""
    schema, model = data.schema, task.model
    sizes = f"{data.meta['num_users']:,} users, {schema.num_items:,} items"
    train = len(data.tables["position/train"])
    positives = len(data.train_dataloader().position)
    val, test = (int(data.tables[f"targets/{part}"].sum()) for part in ("val", "test"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    steps = steps_of(data, trainer.world_size)
    device = trainer.strategy.root_device
    where = f"threads: up to {torch.get_num_threads()}, cores: {available_cores()}"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    lines = {
        "model": f"{info.choices['model']}, {parameters:,} parameters",
        "data": f"{info.choices['data']}: {sizes}",
        "targets": f"{positives:,} to train, {val:,} to validate, {test:,} to test",
        "steps": f"{steps:,} an epoch, batch {data.batch_size} per process",
        "device": f"{device.type}, processes: {trainer.world_size}, {where}",
        "folder": shown_path(folder),
    }
    if derived:
        values = " ".join(f"{key}={value}".replace(" ", "") for key, value in derived.items())
        text = f"from the {train:,} training interactions: {values}"
        lines["derived"] = textwrap.fill(text, 71, subsequent_indent=" " * 9)
    if hasattr(model, "fit"):
        lines["model"] = f"{info.choices['model']}, fitted in closed form"
        del lines["steps"]
    for name, line in lines.items():
        print(f"{name:<8} {line}", flush=True)


def steps_of(data: RetrievalDataModule, num_processes: int) -> int:
    """Steps of an epoch; before the training the data do not know of further processes."""
    return math.ceil(len(data.train_dataloader()) / num_processes)


def warn_of_data(data: RetrievalDataModule, has_steps: bool = True, num_processes: int = 1) -> None:
    """Warn of few steps an epoch, and of validation targets that training never saw.

    Args:
        data: of the run.
        has_steps: False for a model that is fitted in closed form.
        num_processes: that share an epoch.
    """
    steps = steps_of(data, num_processes)
    if has_steps and steps < FEW_STEPS:
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
    item, user = (data.tables[f"interactions/{side}"][targets] for side in ("item", "user"))
    is_cold = (item >= data.schema.num_train_items) | (user >= data.meta["num_train_users"])
    share = is_cold.float().mean().item()
    if share > MANY_COLD:
        warn(
            f"{share:.0%} of the validation targets are of users or items without training "
            "interactions, and they choose the epoch: data.split.min_history=1 leaves out such "
            "users, callbacks.best.monitor=val/warm/ndcg@10 such items"
        )


def warn_of_result(record: dict[str, Any], monitor: str) -> None:
    """Warn of a model that is not above popularity, and of item vectors that are all alike."""
    if record["model"] == "popularity":  # its vectors are single numbers, with a cosine of 1
        return
    metric = monitor.rpartition("/")[2]
    own, popular = ((record[part] or {}).get(metric) for part in ("test", "popularity"))
    if own is not None and popular is not None and own <= popular:
        warn(
            f"the model is not above popularity: test {metric} {own:.4f}, popularity {popular:.4f}"
        )
    cosine = record["test"].get("item_cosine", 0.0)
    if cosine > COLLAPSED:
        warn(
            f"two item vectors have a cosine of {cosine:.2f} on average: the items are hardly told "
            "apart; try model.hidden_dims=[], a lower optimizer.lr or model.dropout"
        )
