"""Optimizers whose step costs what the batch costs, however many rows the embedding tables have.

A dense optimizer reads and writes every row of every table in every step, those of items that the batch does not hold too. These
read and write the batch's rows alone; whatever is no large table gets AdamW. Adam's moments of a row that a dense optimizer would
let decay stand still here until the row comes again, so the two are equal only where every row is in every batch.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from twotower.distributed.collectives import RowGatherer, world_size
from twotower.distributed.sharding import num_rows, shard_of
from twotower.errors import UserError, check_number


class RowSparse(AdamW):
    """AdamW for the dense part, a rule for rows for the tables.

    Args:
        params: the model's; those that a layer has marked with ``is_table`` and that have ``min_rows`` rows become row-sparse.
        lr: of the dense part.
        table_lr: of the tables, None: the same.
        betas: Adam's.
        eps: added to the root.
        weight_decay: apart from the gradient, as in AdamW; of a table the batch's rows decay.
        min_rows: smaller tables are dense: there it is as fast, and all rows have fresh moments.

    Raises:
        UserError: for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        table_lr: float | None,
        betas: list[float],
        eps: float,
        weight_decay: float,
        min_rows: int,
    ) -> None:
        for name, value in (
            ("lr", lr),
            ("table_lr", lr if table_lr is None else table_lr),
            ("eps", eps),
        ):
            check_number(f"optimizer.{name}", value, 0)
        check_number("optimizer.min_rows", min_rows, 0)
        dense: list[nn.Parameter] = []
        tables: list[nn.Parameter] = []
        for parameter in params:
            row_sparse = getattr(parameter, "is_table", False) and num_rows(parameter) >= min_rows
            parameter.row_sparse = row_sparse  # type: ignore[attr-defined]
            (tables if row_sparse else dense).append(parameter)
        of_tables = {"params": tables, "lr": lr if table_lr is None else table_lr}
        groups = [group for group in ({"params": dense}, of_tables) if group["params"]]
        if len(betas) != 2:
            raise UserError(f"optimizer.betas must be two numbers, got {betas}")
        super().__init__(
            groups,
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            weight_decay=weight_decay,
            fused=True,
        )
        self._step_supports_amp_scaling = (
            False  # a gradient scaler must unscale before the step: rows know of no scale
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tables = [
            (group, p)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and p.grad.is_sparse
        ]
        gradients = [_of_all_processes(parameter).coalesce() for _, parameter in tables]
        for _, parameter in tables:
            parameter.grad = None
        super().step()
        with torch.no_grad():
            for (group, parameter), gradient in zip(tables, gradients, strict=True):
                self._step_rows(parameter, gradient.indices()[0], gradient.values(), group)
        return loss

    def _step_rows(
        self, table: Tensor, row: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> None:
        update = self._direction(table, row, gradient, group)  # (num_rows, dim)
        if group["weight_decay"]:
            update = update + group["weight_decay"] * table[row]
        table.index_add_(0, row, update, alpha=-group["lr"])

    @abstractmethod
    def _direction(
        self, table: Tensor, row: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """What ``lr`` multiplies, ``(num_rows, dim)``; brings the state of ``row`` up to date."""


def check_clipping(optimizer: Optimizer, num_processes: int, precision: str) -> None:
    """Refuse to clip gradients where it would come out wrong.

    Raises:
        UserError: naming the settings.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if num_processes > 1 and any(getattr(p, "row_sparse", False) for p in parameters):
        raise UserError(
            "trainer.gradient_clip_val would clip each process's rows by another norm where the "
            "optimizer trains tables by rows: leave it out, or set optimizer=adamw"
        )
    if precision == "16-mixed" and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed needs an optimizer that does "
            "not scale gradients by itself: set optimizer.fused=false, or trainer.precision=bf16-mixed"
        )


def clip_gradients(parameters: Iterable[Tensor], value: float, algorithm: str) -> None:
    """Clip gradients in place, row-sparse ones as if they were dense.

    Args:
        parameters: those without a gradient are left out.
        value: the largest norm of all gradients together, or the largest entry.
        algorithm: ``norm`` or ``value``.
    """
    entries = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = (
                parameter.grad.coalesce()
            )  # a row that stands twice counts with its sum
            entries.append(_with_gradient(parameter.grad.values()))
        elif parameter.grad is not None:
            entries.append(parameter)
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(entries, value)
    else:
        nn.utils.clip_grad_value_(entries, value)


def _with_gradient(values: Tensor) -> Tensor:
    """A tensor whose gradient is ``values``: torch clips gradients of tensors."""
    holder = values.detach().requires_grad_()
    holder.grad = values
    return holder


def _of_all_processes(parameter: Tensor) -> Tensor:
    """The mean over processes of a sparse gradient, which DDP leaves alone; a shard's is that already."""
    assert parameter.grad is not None
    if world_size() == 1 or shard_of(parameter) is not None:
        return parameter.grad
    gradient = parameter.grad.coalesce()
    everyones = RowGatherer(len(gradient.values()), gradient.device)
    row, values = everyones(gradient.indices()[0], -1), everyones(gradient.values())
    return torch.sparse_coo_tensor(
        row[row >= 0][None], values[row >= 0] / world_size(), gradient.shape
    )


class LazyAdam(RowSparse):
    """Adam of the batch's rows: ``torch.optim.SparseAdam`` beside AdamW. Two moments as large as each table."""

    def _direction(
        self, table: Tensor, row: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(table),
                "exp_avg_sq": torch.zeros_like(table),
            }
        state["step"] += 1
        step = state["step"].item()  # on the CPU, as AdamW's
        first = state["exp_avg"][row].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"][row].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["exp_avg"].index_copy_(0, row, first)
        state["exp_avg_sq"].index_copy_(0, row, second)
        root = second.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        return first.div_(1 - beta1**step).div_(root)


class RowwiseAdagrad(RowSparse):
    """Adagrad with one number for each row: the sum of its mean squared gradients (Gupta et al. 2014; TorchRec's and FBGEMM's).

    The state of a table of 32 dimensions is a 32nd of the table, where Adam's is twice the table.
    """

    def _direction(
        self, table: Tensor, row: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        state = self.state[table]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "sum": table.new_zeros(len(table)),
            }  # AdamW reads a step from every state
        state["step"] += 1
        total = state["sum"][row] + gradient.square().mean(1)  # (num_rows,)
        state["sum"].index_copy_(0, row, total)
        return gradient / (total.sqrt() + group["eps"])[:, None]
