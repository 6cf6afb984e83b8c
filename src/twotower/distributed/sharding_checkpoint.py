"""Whole tables in checkpoints, so that any number of processes can load them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from twotower.distributed.sharding import Shard, gather_rows, shard_of


def whole_tables(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ``state_dict`` with whole tables in process 0. All processes must call it."""
    whole: dict[nn.Parameter, Tensor] = {}
    tables = {}
    for name, (parameter, shard) in _tables(module).items():
        if parameter not in whole:  # a shared table has two names
            whole[parameter] = gather_rows(state[name], shard)
        tables[name] = whole[parameter]
    return {**state, **tables}


def own_tables(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: a ``state_dict`` with this process's rows of sharded tables."""
    own = dict(state)
    for name, (_, shard) in _tables(module).items():
        if name in own:
            own[name] = shard.own(own[name])
    return own


def whole_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's ``state_dict`` with whole tables in process 0. All processes must call it."""
    return _each_row(optimizer, state, gather_rows)


def own_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The inverse: an optimizer's ``state_dict`` with this process's rows of sharded tables."""
    return _each_row(optimizer, state, lambda value, shard: shard.own(value).clone())


def _each_row(
    optimizer: Optimizer, state: dict[str, Any], change: Callable[[Tensor, Shard], Tensor]
) -> dict[str, Any]:
    """A copy of ``state`` with changed tensors for sharded tables; scalars stay as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = dict(state["state"])
    for index, own in entries.items():
        shard = shard_of(parameters[index])
        if shard is not None:
            entries[index] = {
                key: change(value, shard) if value.dim() > 0 else value
                for key, value in own.items()
            }
    return {**state, "state": entries}


def _tables(module: nn.Module) -> dict[str, tuple[nn.Parameter, Shard]]:
    """Sharded tables by all their names."""
    tables = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        shard = shard_of(parameter)
        if shard is not None:
            tables[name] = (parameter, shard)
    return tables
