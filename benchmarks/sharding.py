"""Memory, step time and losses of sharded tables and of a whole copy in each process."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.tables import Stepper
from benchmarks.timing import in_turn, milliseconds
from twotower.distributed.sharding import SHARDING, built_for, shard_of
from twotower.distributed.torchrec_tables import check_installed
from twotower.errors import check_choice, check_number
from twotower.files import write_json
from twotower.run.build import seed_everything
from twotower.run.results import peak_memory_bytes
from twotower.training.torchrec import hand_over


def measure(
    config: DictConfig,
    shardings: list[str],
    rows: int,
    items: int | None,
    processes: int,
    rounds: int,
    steps: int,
) -> dict[str, Any]:
    """Milliseconds per step, bytes of a process and losses for some ``model.sharding``.

    They run in turn on random pairs. A step runs model, loss and optimizer of the config in
    DDP; batches are made in advance, so loading is not measured. Before, each trains ``steps``
    steps on the same batches from the same weights, whose losses are compared. The process's peak
    of memory is that of all shardings together: measure one alone for its own.
    """
    for sharding in shardings:
        check_choice("shardings", sharding, SHARDING)
    if "torchrec" in shardings:
        check_installed()
    check_number("rows", rows, 1000)
    check_number("processes", processes, 2)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "measured.json"
        sizes = (rows, items, processes, rounds, steps)
        given = (plain, f"file://{folder}/rendezvous", output, list(shardings), *sizes)
        spawn(_measure, given, processes)
        measured = json.loads(output.read_text())
    first, last = measured[shardings[0]], measured[shardings[-1]]
    pairs = list(zip(first["losses"], last["losses"], strict=True))
    return {
        "shardings": list(shardings),
        "rows": rows,
        "items": items or rows,
        "processes": processes,
        **measured,
        "step_ratio": last["step_ms"] / first["step_ms"],
        "loss_difference": max(abs(one - other) for one, other in pairs),
    }


def _measure(
    rank: int,
    plain: Any,
    rendezvous: str,
    output: Path,
    shardings: list[str],
    rows: int,
    items: int | None,
    processes: int,
    rounds: int,
    steps: int,
) -> None:
    """Measure in one process of the group; rank 0 writes its results to ``output``."""
    config = OmegaConf.create(plain)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=processes)
    steppers, losses = {}, {}
    for sharding in shardings:
        stepper = _stepper(config, rank, processes, sharding, rows, items)
        torch.manual_seed(config.seed + rank)
        losses[sharding] = stepper.losses(steps)
        steppers[sharding] = stepper

    def run_together(stepper: Stepper) -> float:
        dist.barrier()
        return stepper.run(steps)

    runs = {name: partial(run_together, stepper) for name, stepper in steppers.items()}
    seconds = in_turn(runs, rounds)
    if rank == 0:
        measured: dict[str, Any] = {}
        for name, stepper in steppers.items():
            measured[name] = {**_figures(stepper, seconds[name]), "losses": losses[name]}
        write_json(output, {**measured, "process_peak_bytes": peak_memory_bytes()})
    dist.barrier()
    dist.destroy_process_group()


def _stepper(
    config: Any, rank: int, processes: int, sharding: str, rows: int, items: int | None
) -> Stepper:
    seed_everything(config.seed)
    with built_for(rank, processes):
        merged: Any = OmegaConf.merge(config, {"model": {"sharding": sharding}})
        stepper = Stepper(merged, rows, items)
    hand_over(stepper.optimizer, torch.device("cpu"), processes)
    named: list[tuple[str, Any]] = list(stepper.model.named_parameters())
    ignored = []
    for name, parameter in named:
        if shard_of(parameter) or getattr(parameter, "row_sparse", False):
            ignored.append(name)
    stepper.model._ddp_params_and_buffers_to_ignore = ignored
    if len(ignored) < len(named):  # DDP fails if every parameter is ignored
        stepper.model = DistributedDataParallel(stepper.model)
    return stepper


def _figures(stepper: Stepper, seconds: list[float]) -> dict[str, Any]:
    states = [value for state in stepper.optimizer.state.values() for value in state.values()]
    return {
        "step_ms": milliseconds(seconds),
        "rounds_ms": [1000 * value for value in seconds],
        "parameter_bytes": _bytes(stepper.model.parameters()),
        "optimizer_bytes": _bytes(states),
    }


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def table(record: dict[str, Any]) -> Table:
    """Time and memory of whole and sharded tables."""
    title = f"{record['model']}, {record['optimizer']}, batch {record['batch_size']}"
    shown = Table(title=f"{title}, {record['processes']} processes of one thread")
    for column in ("model.sharding", "ms per step", "parameters, MiB", "optimizer, MiB"):
        shown.add_column(column, justify="right")
    for sharding in record["shardings"]:
        figures = record[sharding]
        sizes = (f"{figures[f'{part}_bytes'] / 2**20:.1f}" for part in ("parameter", "optimizer"))
        shown.add_row(sharding, f"{figures['step_ms']:.2f}", *sizes)
    peak = record["process_peak_bytes"] / 2**20
    shown.caption = (
        f"{record['rows']:,} and {record['items']:,} rows; medians of rounds in turn; bytes of one "
        f"process, whose peak is {peak:,.0f} MiB; losses differ by {record['loss_difference']:.1e}"
    )
    return shown
