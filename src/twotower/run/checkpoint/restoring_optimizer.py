"""The state of an optimizer in a checkpoint, checked against the optimizer that is to go on with it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from twotower.distributed.sharding import num_rows
from twotower.errors import UserError
from twotower.run.checkpoint.checkpoints import is_dense
from twotower.run.checkpoint.state_kinds import taken


def optimizer_state(states: Any, own: Optimizer, make: Callable[..., Optimizer]) -> dict[str, Any]:
    """The state that a checkpoint has of an optimizer, fit to be loaded.

    Args:
        states: ``optimizer_states`` of the checkpoint; of sharded tables whole.
        own: the run's optimizer.
        make: makes such an optimizer from parameters.

    Raises:
        UserError: for a state of other parameters, or another optimizer.
    """
    if not isinstance(states, list) or len(states) != 1 or not isinstance(states[0], dict):
        raise UserError("has no optimizer_states of one optimizer")
    groups, entries = states[0].get("param_groups"), states[0].get("state")
    if not isinstance(groups, list) or not isinstance(entries, dict):
        raise UserError("optimizer_states is no state of an optimizer")
    if len(groups) != len(own.param_groups):
        raise UserError(
            f"optimizer_states has {len(groups)} groups of parameters, where {type(own).__name__} has "
            f"{len(own.param_groups)}: an earlier version wrote it, or it is damaged; it can be "
            "evaluated and exported, but not trained further"
        )
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]
    numbers = [number for group in groups for number in _numbers(group)]
    if not all(type(number) is int for number in numbers) or numbers != list(
        range(len(parameters))
    ):
        raise UserError(
            f"optimizer_states is of {len(numbers)} parameters, the model has {len(parameters)}"
        )
    expected: dict[tuple[bool, int], dict[str, torch.Size] | None] = {}
    for index, state in entries.items():
        if (
            type(index) is not int
            or not 0 <= index < len(parameters)
            or not isinstance(state, dict)
        ):
            raise UserError(f"optimizer_states has a state of {index!r}, which is no parameter")
        parameter = parameters[index]
        kind = (getattr(parameter, "row_sparse", False), parameter.dim())
        if kind not in expected:
            expected[kind] = _entries(make, *kind)
        _check_entries(state, expected[kind], parameter, f"optimizer_states.state.{index}")
    return {"state": entries, "param_groups": list(map(_group, groups, own.param_groups))}


def scheduler_state(found: Any, own: dict[str, Any]) -> dict[str, Any]:
    """The state that a checkpoint has of a learning rate scheduler, fit to be loaded.

    Args:
        found: an entry of ``lr_schedulers`` of the checkpoint.
        own: the state of the run's scheduler.

    Raises:
        UserError: for a state of another scheduler.
    """
    found = taken(found, own, "lr_schedulers")
    for key, value in own.items():
        if isinstance(value, list):  # a number for each group of parameters
            if len(found[key]) != len(value):
                raise UserError(
                    f"lr_schedulers.{key} has {len(found[key])} entries, not {len(value)}"
                )
            taken(dict(enumerate(found[key])), dict(enumerate(value)), f"lr_schedulers.{key}")
    return found


def _group(found: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Our own settings, as the config has them, with the numbers that were found: a scheduler may have moved them."""
    where = "optimizer_states.param_groups"
    if "initial_lr" in found:  # a scheduler's, which is made later
        own = {**own, "initial_lr": own["lr"]}
    numbers = {
        key: value
        for key, value in own.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    numbers = taken(found, {key: float(value) for key, value in numbers.items()}, where)
    for key, value in own.items():
        if isinstance(value, tuple) and all(isinstance(number, float) for number in value):
            given = found.get(key)
            given = dict(enumerate(given)) if isinstance(given, (list, tuple)) else given
            numbers[key] = tuple(taken(given, dict(enumerate(value)), f"{where}.{key}").values())
    return {**own, **numbers, "params": found["params"]}


def _numbers(group: Any) -> list[Any]:
    numbers = group.get("params") if isinstance(group, dict) else None
    return numbers if isinstance(numbers, list) else []


def _entries(
    make: Callable[..., Optimizer], row_sparse: bool, num_dims: int
) -> dict[str, torch.Size] | None:
    """What the optimizer keeps of a parameter, and of which shape if the parameter's is ``(3, 2, 2, …)``; found by a step.

    None for an optimizer whose step needs more than a gradient.
    """
    shape = _probe(num_dims)
    weight = nn.Parameter(torch.zeros(shape))
    weight.is_table = row_sparse  # type: ignore[attr-defined]
    weight.grad = torch.zeros(shape).to_sparse(1) if row_sparse else torch.zeros(shape)
    try:
        optimizer = make([weight], **({"min_rows": 0} if row_sparse else {}))
        optimizer.step()
    except Exception:
        return None
    state = optimizer.state[weight]
    return {name: value.shape for name, value in state.items() if isinstance(value, Tensor)}


def _probe(num_dims: int) -> tuple[int, ...]:
    return (3, *[2] * (num_dims - 1)) if num_dims else ()


def _check_entries(
    state: dict[str, Any], own: dict[str, torch.Size] | None, parameter: Tensor, where: str
) -> None:
    if own is None or not state:
        return
    whole = (num_rows(parameter), *parameter.shape[1:]) if parameter.dim() else ()
    probe = _probe(parameter.dim())
    shapes = {(): (), probe: whole, probe[:1]: whole[:1]}
    for name, shape in own.items():
        value = state.get(name)
        if value is None or not is_dense(value) or not value.is_floating_point():
            raise UserError(f"{where} has no tensor {name}")
        expected = shapes.get(tuple(shape))
        if expected is not None and tuple(value.shape) != expected:
            raise UserError(
                f"{where}.{name} has the shape {tuple(value.shape)}, {expected} belongs there"
            )
        if not bool(value.isfinite().all()):
            raise UserError(f"{where}.{name} holds numbers that are not finite")
