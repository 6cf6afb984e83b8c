"""Parameters that DDP ignores, and checkpoints that do not depend on the number of processes."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from twotower.distributed.collectives import Placeholder
from twotower.distributed.sharding import shard_of
from twotower.distributed.sharding_checkpoint import (
    own_optimizer,
    own_tables,
    whole_optimizer,
    whole_tables,
)
from twotower.errors import UserError
from twotower.layers.running_mean import RunningMeanTable


def leave_out_of_ddp(task: pl.LightningModule) -> Placeholder | None:
    """Tell DDP, before it wraps the model, which parameters to ignore.

    Each process holds other rows of a sharded table, and the optimizer averages the gradients of
    tables that are trained by rows. Running means are updated alike by all processes; DDP would
    send the whole table in every step.

    Returns:
        A dummy parameter for the loss if DDP would ignore every parameter, else None.
    """
    apart = []
    for name, parameter in task.named_parameters():
        if shard_of(parameter) is not None or getattr(parameter, "row_sparse", False):
            apart.append(name)
    for place, module in task.named_modules():
        if isinstance(module, RunningMeanTable):
            apart += [f"{place}.{name}" for name, _ in module.named_buffers()]
    task._ddp_params_and_buffers_to_ignore = apart  # type: ignore[assignment]  # DDP reads it
    trained = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    return Placeholder() if task.trainer.world_size > 1 and trained <= set(apart) else None


def make_whole(task: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
    """Gather sharded tables in a checkpoint that is being written. All processes must call it."""
    checkpoint["state_dict"] = whole_tables(task, checkpoint["state_dict"])
    if "optimizer_states" in checkpoint:
        pairs = zip(task.trainer.optimizers, checkpoint["optimizer_states"], strict=True)
        checkpoint["optimizer_states"] = [whole_optimizer(*pair) for pair in pairs]


def take_own(optimizer: Optimizer | None, checkpoint: dict[str, Any]) -> None:
    """Keep only this process's part of the optimizer's state in a checkpoint that was read."""
    if optimizer is not None and "optimizer_states" in checkpoint:
        states = checkpoint["optimizer_states"]
        checkpoint["optimizer_states"] = [own_optimizer(optimizer, state) for state in states]


def own_weights(task: pl.LightningModule, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a checkpoint that this process loads: of a sharded table, its rows.

    Parameters become float64 where the checkpoint's are.

    Raises:
        UserError: for weights that are missing, unknown, not finite or of another shape.
    """
    found = own_tables(task, state)
    for name, module in task.named_modules():
        if hasattr(module, "allocate_for"):  # its shapes are known at the first batch, or here
            module.allocate_for(found, f"{name}.")
    check_weights(found, task.state_dict())
    own = {**dict(task.named_parameters()), **dict(task.named_buffers())}
    for name, value in found.items():
        if name in own and value.dtype == torch.float64:
            own[name].data = own[name].data.double()
    return found


def check_weights(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit a model.

    Args:
        found: to be loaded.
        own: of the model.

    Raises:
        UserError: naming the first weight that does not fit.
    """
    for name in found.keys() ^ own.keys():
        where = "the model has none" if name in found else "it has none"
        raise UserError(f"state_dict does not fit the model: {name}, of which {where}")
    for name, value in found.items():
        shape, expected = tuple(value.shape), tuple(own[name].shape)
        if shape != expected:
            raise UserError(f"state_dict: {name} has the shape {shape}, the model's is {expected}")
        if value.is_floating_point() != own[name].is_floating_point() or value.is_complex():
            raise UserError(
                f"state_dict: {name} is of {value.dtype}, the model's of {own[name].dtype}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"state_dict: {name} holds numbers that are not finite")
