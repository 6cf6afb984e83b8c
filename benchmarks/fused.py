"""Time and memory of several runs trained in one pass, beside runs trained one after the other."""

import copy
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.step import framework_step
from benchmarks.timing import in_turn, milliseconds, now
from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError, check_number
from twotower.run.build import build, build_part
from twotower.training.fused.engine import FusedRuns
from twotower.training.fused.limits import why_not, why_not_recorded
from twotower.training.task import RetrievalTask
from twotower.types import TrainIndex

ON_A_GPU = [1, 3, 9, 27, 81]
ON_A_CPU = [1, 3]
WARM_UP = 10
PROFILED = 5  # steps
LAMBDAS = ("lambda1", "lambda2", "lambda3")
LOOP, FIT = "plain loop", "trainer.fit"  # of one run


def measure(
    config: DictConfig,
    num_runs: list[int] | None,
    rounds: int,
    steps: int,
    record: bool | None,
    kernels: bool,
) -> dict[str, Any]:
    """Time of a step of each number of runs in one pass, and of a plain step of one run.

    All are measured in turn in each round, and ratios are of times in the same round. Runs one
    after the other take as many plain steps as there are runs.

    Raises:
        UserError: for runs that cannot be trained in one pass or recorded, and too little data.
    """
    check_number("steps", steps, 2)
    OmegaConf.set_struct(config, False)
    device = build_part(config, "trainer", logger=False).strategy.root_device
    on_gpu = device.type == "cuda"
    record = on_gpu if record is None else record
    numbers = sorted({1, *(num_runs or (ON_A_GPU if on_gpu else ON_A_CPU))})
    data, task = build(config)
    reason = why_not(task, data, None) or (why_not_recorded(device) if record else None)
    if reason is not None:
        raise UserError(f"benchmark=fused trains no such runs: {reason}")
    plain = PlainRun(config, data, device)
    plain.run(WARM_UP)  # it moves the data to the device before they are copied
    contestants: dict[str | int, Callable[[], float]] = {
        LOOP: partial(plain.run, steps),
        FIT: partial(framework_step, config, copy.copy(data), task, steps),
    }
    groups, memory = {}, {}
    for number in numbers:
        before = _allocated(device)
        groups[number] = Group(config, data, number, device, record)
        groups[number].run(WARM_UP)
        memory[number] = torch.cuda.max_memory_allocated() - before if on_gpu else None
        contestants[number] = partial(groups[number].run, steps)
    seconds = in_turn(contestants, rounds)
    together = {}
    for number, group in groups.items():
        together[number] = {
            "num_seeds": group.num_seeds,
            "run_ms": milliseconds(seconds[number]) / number,
            "times_one": _ratios(seconds[number], seconds[1]),
            "gain": [number * r for r in _ratios(seconds[FIT], seconds[number])],
            "memory_bytes": memory[number],
            "kernels": kernels_of(group) if kernels else None,
        }
    return {
        "data": data.reader.name,
        "loss": config.loss.get("task", config.loss)._target_.split(".")[-1],
        "device": str(device),
        "recorded": record,
        "rounds": rounds,
        "step_ms": {name: milliseconds(values) for name, values in seconds.items()},
        "runs": together,
    }


class PlainRun:
    """One run, trained by the ordinary operations in a loop without Lightning."""

    def __init__(self, config: DictConfig, data: RetrievalDataModule, device: torch.device) -> None:
        self.data, self.device = data, device
        self.task = _task(config, data, config.seed, 0).to(device)
        self.optimizer = self.task.optimizer(self.task.model.parameters())  # type: ignore[misc]
        self.indices = _full_batches(data)

    def run(self, steps: int) -> float:
        """Seconds per step."""
        started = now()
        for index in islice(self.indices, steps):
            index = index._replace(position=index.position.to(self.device))
            loss = self.task.step(self.data.train_batch(index)).total
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return (now() - started) / steps


class Group:
    """Runs in one pass: three seeds if their number allows it, with equally many settings each."""

    def __init__(
        self,
        config: DictConfig,
        data: RetrievalDataModule,
        num_runs: int,
        device: torch.device,
        record: bool,
    ) -> None:
        self.num_seeds = 3 if num_runs % 3 == 0 else 1
        of_seed = []
        for number in range(self.num_seeds):
            of_seed.append(copy.copy(data))
            of_seed[-1].seed = config.seed + number
        tasks, own_data = [], []
        for run in range(num_runs):
            setting, number = divmod(run, self.num_seeds)
            own_data.append(of_seed[number])
            tasks.append(_task(config, data, config.seed + number, setting).to(device))
        optimizers = [task.optimizer(task.model.parameters()) for task in tasks]  # type: ignore[misc]
        self.fused = FusedRuns(tasks, own_data, optimizers, record=record)
        self.indices = zip(*map(_full_batches, of_seed), strict=True)

    def run(self, steps: int) -> float:
        """Seconds per step of all runs."""
        started = now()
        self.fused.train(list(islice(self.indices, steps)))
        return (now() - started) / steps


def _task(config: DictConfig, data: Any, seed: int, setting: int) -> RetrievalTask:
    """A run whose loss weights, or else the learning rate, differ from those of other settings."""
    config = copy.deepcopy(config)
    factor = 1 + setting / 100
    weights = [name for name in LAMBDAS if config.loss.get(name)]
    for name in weights:
        config.loss[name] *= factor
    if not weights:
        config.optimizer.lr *= factor
    torch.manual_seed(seed)
    model, loss = (build_part(config, part, schema=data.schema) for part in ("model", "loss"))
    task = RetrievalTask(model, loss, build_part(config, "optimizer"), [], (), None)
    return task.train()


def _full_batches(data: RetrievalDataModule) -> Iterator[TrainIndex]:
    """Batches of all epochs without the last one of each, which may be smaller."""
    loader = data.train_dataloader()
    if len(loader.position) < loader.batch_size:
        raise UserError(
            f"data.batch_size={loader.batch_size}: the training data have {len(loader.position)} "
            "positives, so choose a smaller one"
        )
    while True:
        for index in loader:
            if len(index.position) == loader.batch_size:
                yield index


def kernels_of(group: Group) -> dict[str, tuple[float, float]]:
    """How often each kernel runs in a step, and its microseconds in a step, most time first.

    On a CPU they are operations, the inner ones of which count too.
    """
    on_gpu = group.fused.device.type == "cuda"
    kind = "CUDA" if on_gpu else "CPU"
    with profile(activities=[getattr(ProfilerActivity, kind)]) as trace:
        group.run(PROFILED)
    events = [event for event in trace.key_averages() if event.device_type.name == kind]
    spent = {}
    for event in events:
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        spent[event.key] = (event.count / PROFILED, time / PROFILED)
    return dict(sorted(spent.items(), key=lambda item: -item[1][1]))


def _allocated(device: torch.device) -> int:
    """Bytes of tensors on a GPU now; the peak counts from here."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _ratios(seconds: list[float], of: list[float]) -> list[float]:
    return [own / other for own, other in zip(seconds, of, strict=True)]


def table(record: dict[str, Any]) -> Table:
    """A row for each number of runs, below those of a plain step."""
    title = f"{record['model']}, {record['loss']}, {record['data']}, batch {record['batch_size']:,}"
    how = "recorded" if record["recorded"] else "not recorded"
    shown = Table("runs", title=f"{title}, {record['device']}, {how}")
    for name in ("ms", "ms / run", "MiB", "x one", "gain"):
        shown.add_column(name, justify="right")
    for name in (LOOP, FIT):
        value = f"{record['step_ms'][name]:.3f}"
        shown.add_row(name, value, value, "", "", "")
    for number, own in record["runs"].items():
        memory, gain = own["memory_bytes"], own["gain"]
        shown.add_row(
            str(number),
            f"{record['step_ms'][number]:.3f}",
            f"{own['run_ms']:.3f}",
            "" if memory is None else f"{memory / 2**20:,.0f}",
            f"{statistics.median(own['times_one']):.2f}",
            f"{statistics.median(gain):.2f} ({min(gain):.2f}-{max(gain):.2f})",
        )
    shown.caption = "\n".join(_notes(record))
    return shown


def _notes(record: dict[str, Any]) -> list[str]:
    notes = [
        f"a step of all runs, of three seeds if possible; medians of {record['rounds']} rounds",
        "x one: beside a step of one run, made like this",
        "gain: the same number of steps of trainer.fit, beside this step",
    ]
    if record["device"] == "cpu":
        notes.append("A CPU gains little or nothing: larger operations take longer there.")
    for number, own in record["runs"].items():
        if own["kernels"]:
            count, time = (sum(values) for values in zip(*own["kernels"].values(), strict=True))
            what = "operations" if record["device"] == "cpu" else "kernels"
            notes.append(f"{number} in one pass: {count:,.0f} {what} a step, {time:,.0f} us")
    return notes
