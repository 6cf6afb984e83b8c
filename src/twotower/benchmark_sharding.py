"""Measures what sharded tables save in memory and cost in time beside tables that each process holds as a whole."""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from twotower.benchmark_tables import Stepper
from twotower.distributed.sharding import SHARDING, built_for, shard_of
from twotower.errors import check_number
from twotower.run import results
from twotower.run.build import seed_everything
from twotower.wording import PlainConsole


def benchmark_sharding(config: DictConfig) -> dict[str, Any]:
    """Milliseconds per step and bytes of a process with ``model.sharding`` of ``none`` and ``row`` in turn, on random pairs.

    The step is model, loss and optimizer of the config in DDP; data are made in advance, so it is the step alone.
    """
    check_number("rows", config.rows, 1000)
    check_number("processes", config.processes, 2)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        multiprocessing.spawn(_measure, (config, f"file://{folder}/rendezvous", found), config.processes)
        measured = json.loads(found.read_text())
    record = {
        "model": config.model._target_.split(".")[-1],
        "optimizer": config.optimizer._target_.split(".")[-1],
        "batch_size": config.data.batch_size,
        "rows": config.rows,
        "processes": config.processes,
        **measured,
        "step_ratio": measured["row"]["step_ms"] / measured["none"]["step_ms"],
        "versions": results.versions(),
    }
    _print(record)
    if config.output:
        results.write_json(Path(config.output), record)
    return record


def _measure(rank: int, config: DictConfig, rendezvous: str, found: Path) -> None:
    """What one process finds; the first one writes it down."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=config.processes)
    steppers = {sharding: _stepper(config, rank, sharding) for sharding in SHARDING}
    torch.manual_seed(config.seed + rank)
    seconds: dict[str, list[float]] = {sharding: [] for sharding in SHARDING}
    for _ in range(config.rounds):
        for sharding, stepper in steppers.items():
            dist.barrier()
            seconds[sharding].append(stepper.run(config.steps))
    if rank == 0:
        measured = {sharding: _figures(stepper, seconds[sharding]) for sharding, stepper in steppers.items()}
        results.write_json(found, measured)
    dist.barrier()
    dist.destroy_process_group()


def _stepper(config: DictConfig, rank: int, sharding: str) -> Stepper:
    seed_everything(config.seed)
    with built_for(rank, config.processes):
        stepper = Stepper(OmegaConf.merge(config, {"model": {"sharding": sharding}}), config.rows)  # type: ignore[arg-type]
    named: list[tuple[str, Any]] = list(stepper.model.named_parameters())
    apart = [name for name, parameter in named if shard_of(parameter) or getattr(parameter, "row_sparse", False)]
    stepper.model._ddp_params_and_buffers_to_ignore = apart
    if len(apart) < len(named):
        stepper.model = DistributedDataParallel(stepper.model)
    return stepper


def _figures(stepper: Stepper, seconds: list[float]) -> dict[str, Any]:
    states = [value for state in stepper.optimizer.state.values() for value in state.values()]
    return {
        "step_ms": 1000 * statistics.median(seconds),
        "rounds_ms": [1000 * value for value in seconds],
        "parameter_bytes": _bytes(stepper.model.parameters()),
        "optimizer_bytes": _bytes(states),
    }


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _print(record: dict[str, Any]) -> None:
    title = (
        f"{record['model']}, {record['optimizer']}, batch {record['batch_size']}, {record['processes']} processes of one thread"
    )
    table = Table(title=title)
    for column in ("model.sharding", "ms per step", "parameters, MiB", "optimizer, MiB"):
        table.add_column(column, justify="right")
    for sharding in SHARDING:
        figures = record[sharding]
        sizes = (f"{figures[f'{part}_bytes'] / 2**20:.1f}" for part in ("parameter", "optimizer"))
        table.add_row(sharding, f"{figures['step_ms']:.2f}", *sizes)
    table.caption = f"{record['rows']:,} rows of each table; medians of rounds in turn; bytes of one process"
    PlainConsole().print(table)
