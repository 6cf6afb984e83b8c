"""Tables of ``model.sharding=torchrec``: what is refused, and their way to TorchRec and back."""

from functools import partial

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from twotower.distributed.sharding import Block, shard_of
from twotower.distributed.torchrec_tables import TorchRecTables, can_train, check_installed
from twotower.errors import UserError
from twotower.optimizers.row_sparse import RowwiseAdagrad

ROW = "or set model.sharding=row"


def check(trainer: pl.Trainer) -> None:
    """Refuse a training that TorchRec's tables cannot take part in.

    Raises:
        UserError: naming the setting and the cure.
    """
    if trainer.world_size == 1:
        raise UserError(
            "model.sharding=torchrec needs several processes: set trainer.devices=2 "
            f"trainer.strategy=ddp, {ROW}"
        )
    if trainer.precision not in ("32-true", "bf16-mixed"):
        raise UserError(
            f"trainer.precision={trainer.precision}: tables of model.sharding=torchrec are float32 "
            f"and their gradients are not scaled: set 32-true or bf16-mixed, {ROW}"
        )
    if trainer.accumulate_grad_batches > 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: tables of "
            "model.sharding=torchrec make a step in each backward pass: set it to 1 and "
            f"data.batch_size higher, {ROW}"
        )
    if any(getattr(callback, "compile", False) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise UserError(
            "callbacks.speed.compile=true does not work with model.sharding=torchrec: set it to "
            "false, or set model.sharding=none and optimizer=adamw"
        )
    check_installed()


def tables_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """The tables that TorchRec will train: those that the optimizer trains by rows.

    Others (smaller than ``optimizer.min_rows``, or so small that a process has no row) stay as with
    ``model.sharding=row``.

    Raises:
        UserError: for other optimizers, no such table, and widths that FBGEMM does not have.
    """
    if not isinstance(optimizer, RowwiseAdagrad):
        raise UserError(
            "model.sharding=torchrec trains tables by its own row-wise Adagrad: set "
            f"optimizer=rowwise_adagrad, {ROW}"
        )
    last = optimizer.param_groups[-1]["params"]  # the group of tables, if there is one
    tables = [weight for weight in last if weight.row_sparse and can_train(weight)]
    if not tables:
        raise UserError(
            f"model.sharding=torchrec: no table has optimizer.min_rows rows: set it lower, {ROW}"
        )
    if widths := sorted({weight.shape[1] for weight in tables if weight.shape[1] % 4}):
        raise UserError(
            f"model.sharding=torchrec needs tables with widths that are multiples of 4, got "
            f"{', '.join(map(str, widths))}: change model.embedding_dim and model.dim, {ROW}"
        )
    return tables


def hand_over(optimizer: Optimizer, device: torch.device, local_size: int) -> TorchRecTables | None:
    """Let TorchRec train its tables; None if there are no shards for it.

    The optimizer keeps the state that its checkpoints have: the sums are views of TorchRec's. It
    does not step these tables, as their gradient is never set.

    Args:
        optimizer: of the model.
        device: of this process.
        local_size: processes on this machine.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(isinstance(shard_of(parameter), Block) for parameter in parameters):
        return None
    tables = tables_of(optimizer)

    def current_lr() -> float:
        return float(optimizer.param_groups[-1]["lr"])  # a loaded state has new groups

    group = optimizer.param_groups[-1]
    eps, decay = group["eps"], group["weight_decay"]
    found = TorchRecTables(tables, current_lr, eps, decay, device, local_size)
    for weight, sums in found.sums().items():
        optimizer.state[weight] = {"step": torch.zeros(()), "sum": sums}
    assert isinstance(optimizer, RowwiseAdagrad)  # as tables_of has checked
    optimizer.after_step = partial(_count_step, optimizer, found)
    optimizer.register_load_state_dict_post_hook(lambda _: _take_state(optimizer, found))
    return found


def _count_step(optimizer: Optimizer, tables: TorchRecTables) -> None:
    tables.end_step()
    for weight in tables.weights():
        optimizer.state[weight]["step"] += 1


def _take_state(optimizer: Optimizer, tables: TorchRecTables) -> None:
    """Copy a loaded state into TorchRec's memory."""
    for weight, sums in tables.sums().items():
        state = optimizer.state[weight]
        if "sum" in state:
            sums.copy_(state["sum"])
        else:  # the checkpoint is of a table that no step had read
            sums.zero_()
            state["step"] = torch.zeros(())
        state["sum"] = sums
