"""Optimizers with steps that read and write only the batch's rows of embedding tables.

A dense optimizer reads and writes every row of every table in every step. These update only the
rows of the batch; everything except large tables is trained by AdamW. Adam's moments of a row decay
in every step of a dense optimizer; here they stay the same until the row is in a batch again. So
the two are equal only if every row is in every batch.
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
    """AdamW for dense parameters, and a rule for the rows of tables, which subclasses define.

    Args:
        params: of the model; those marked with ``is_table`` that have at least ``min_rows`` rows
            become row-sparse.
        lr: of the dense parameters.
        table_lr: of the tables, None: the same.
        betas: of Adam.
        eps: added to the root.
        weight_decay: decoupled from the gradient, as in AdamW; in a table only the batch's rows
            decay.
        min_rows: smaller tables are dense, which is as fast for them and keeps all moments current.

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
        table_lr = lr if table_lr is None else table_lr
        check_number("optimizer.lr", lr, 0)
        check_number("optimizer.table_lr", table_lr, 0)
        check_number("optimizer.eps", eps, 0)
        check_number("optimizer.min_rows", min_rows, 0)
        if len(betas) != 2:
            raise UserError(f"optimizer.betas must be two numbers, got {betas}")
        dense: list[nn.Parameter] = []
        tables: list[nn.Parameter] = []
        for parameter in params:
            row_sparse = getattr(parameter, "is_table", False) and num_rows(parameter) >= min_rows
            parameter.row_sparse = row_sparse  # type: ignore[attr-defined]
            (tables if row_sparse else dense).append(parameter)
        groups: list[dict[str, Any]] = []
        if dense:
            groups.append({"params": dense})
        if tables:
            groups.append({"params": tables, "lr": table_lr})
        moments = (betas[0], betas[1])
        super().__init__(groups, lr, moments, eps, weight_decay, fused=True)
        # Called after each step. A hook of torch may be called twice: AdamW's step has hooks, too.
        self.after_step: Callable[[], None] | None = None
        # A gradient scaler must unscale before the step: the rule for rows needs true gradients.
        self._step_supports_amp_scaling = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss that ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tables = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    tables.append((parameter, _mean_gradient(parameter).coalesce(), group))
                    parameter.grad = None  # AdamW skips parameters without a gradient
        super().step()
        with torch.no_grad():
            for parameter, gradient, group in tables:
                self._step_rows(parameter, gradient.indices()[0], gradient.values(), group)
        if self.after_step is not None:
            self.after_step()
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
        """Update the state of the rows; return the step that ``lr`` multiplies.

        Args:
            table: ``(num_values, dim)``.
            row: ``(num_rows,)`` distinct rows of the batch.
            gradient: ``(num_rows, dim)``.
            group: settings of the table.

        Returns:
            ``(num_rows, dim)``.
        """


def check_clipping(optimizer: Optimizer, num_processes: int, precision: str) -> None:
    """Refuse to clip gradients where the result would be wrong.

    Raises:
        UserError: naming the settings.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if num_processes > 1 and any(getattr(p, "row_sparse", False) for p in parameters):
        raise UserError(
            "trainer.gradient_clip_val would clip each process's rows by a different norm, as the "
            "optimizer trains tables by rows: leave it out, or set optimizer=adamw"
        )
    if precision == "16-mixed" and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed needs an optimizer that "
            "does not scale gradients: set optimizer.fused=false, or trainer.precision=bf16-mixed"
        )


def clip_gradients(parameters: Iterable[Tensor], value: float, algorithm: str) -> None:
    """Clip gradients in place, row-sparse ones as if they were dense.

    Args:
        parameters: those without a gradient are ignored.
        value: largest norm of all gradients together, or largest entry.
        algorithm: ``norm`` or ``value``.
    """
    entries = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # adds up the entries of a repeated row
            entries.append(_with_gradient(parameter.grad.values()))
        elif parameter.grad is not None:
            entries.append(parameter)
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(entries, value)
    else:
        nn.utils.clip_grad_value_(entries, value)


def _with_gradient(values: Tensor) -> Tensor:
    """A tensor with the gradient ``values``, as torch clips the gradients of tensors."""
    holder = values.detach().requires_grad_()
    holder.grad = values
    return holder


def _mean_gradient(parameter: Tensor) -> Tensor:
    """Mean of a sparse gradient over processes, which DDP ignores; a shard has it already."""
    assert parameter.grad is not None
    if world_size() == 1 or shard_of(parameter) is not None:
        return parameter.grad
    gradient = parameter.grad.coalesce()
    gather = RowGatherer(len(gradient.values()), gradient.device)
    row, values = gather(gradient.indices()[0], -1), gather(gradient.values())
    known = row >= 0
    return torch.sparse_coo_tensor(row[known][None], values[known] / world_size(), gradient.shape)


class LazyAdam(RowSparse):
    """Adam for the batch's rows, as ``torch.optim.SparseAdam``; two moments of the table's size."""

    def _direction(
        self, table: Tensor, row: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, so reading it waits for nothing
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table)
        state["step"] += 1
        step = state["step"].item()
        first: Tensor = state["exp_avg"][row].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"][row].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["exp_avg"].index_copy_(0, row, first)
        state["exp_avg_sq"].index_copy_(0, row, second)
        root = second.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        return first.div_(1 - beta1**step).div_(root)


class RowwiseAdagrad(RowSparse):
    """Adagrad with one number for each row: the sum of its mean squared gradients.

    Source: Gupta et al. 2014; TorchRec and FBGEMM have it too. For a table of 32 dimensions the
    state has 1/32 of the table's size, Adam's has twice its size.
    """

    def _direction(
        self, table: Tensor, row: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())  # AdamW reads a step from every state
            state["sum"] = table.new_zeros(len(table))
        state["step"] += 1
        total = state["sum"][row] + gradient.square().mean(1)  # (num_rows,)
        state["sum"].index_copy_(0, row, total)
        direction: Tensor = gradient / (total.sqrt() + group["eps"])[:, None]
        return direction
