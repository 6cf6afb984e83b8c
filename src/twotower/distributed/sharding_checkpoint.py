"""Sharded tables in checkpoints: whole there, so that any number of processes can read what any number wrote."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from twotower.distributed.sharding import Shard, gather_rows, shard_of


def whole_tables(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ``state_dict`` with sharded tables put together, in the first process. All must ask."""
    tables, done = _tables(module), {}
    for name, parameter in tables.items():
        if parameter not in done:  # a shared table has two names
            done[parameter] = gather_rows(state[name], parameter.shard)  # type: ignore[attr-defined]
    return {name: done[tables[name]] if name in tables else value for name, value in state.items()}


def own_tables(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: of sharded tables the rows of this process."""
    tables: dict[str, Any] = _tables(module)
    return {
        name: tables[name].shard.own(value) if name in tables else value
        for name, value in state.items()
    }


def whole_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's ``state_dict`` with what it keeps of each row put together, in the first process. All must ask."""
    return _each_row(optimizer, state, gather_rows)


def own_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The inverse: of sharded tables what belongs to the rows of this process."""
    return _each_row(optimizer, state, lambda value, shard: shard.own(value).clone())


def _each_row(
    optimizer: Optimizer, state: dict[str, Any], change: Callable[[Tensor, Shard], Tensor]
) -> dict[str, Any]:
    """A copy of ``state`` with every tensor that has an entry for each row of a sharded table changed; numbers stay."""
    shards = [
        shard_of(parameter) for group in optimizer.param_groups for parameter in group["params"]
    ]
    changed = {
        index: {
            key: change(value, shard) if value.dim() > 0 else value
            for key, value in entries.items()
        }
        for index, entries in state["state"].items()
        if (shard := shards[index]) is not None
    }
    return {**state, "state": {**state["state"], **changed}}


def _tables(module: nn.Module) -> dict[str, nn.Parameter]:
    """The sharded ones by all their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in named if shard_of(parameter) is not None}
