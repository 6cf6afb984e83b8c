"""Measures the framework against hand-written loops of the same mathematics, and against peers, in turn."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from rich.table import Table

from twotower import peers
from twotower.bare_loop import BareLoop
from twotower.errors import check_number
from twotower.run import results
from twotower.run.build import build, build_part, seed_everything
from twotower.training.callbacks import compiled
from twotower.wording import PlainConsole

WARM_UP = 20
OWN = ("rounds", "steps", "output", "compiled", "benchmark")  # settings of the benchmark itself


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Rates of training, one contestant after the other in each round, the parts of a step, and the time of one full evaluation.

    The first contestant is the framework; every ratio is to it, of the same round.

    Raises:
        UserError: for a model or loss that the bare loop does not know, and for a peer that fails.
    """
    check_number("rounds", config.rounds, 1)
    check_number("steps", config.steps, 2)
    steps = config.steps
    OmegaConf.set_struct(config, False)
    settings = OmegaConf.create({key: value for key, value in config.items() if key not in OWN})
    seed_everything(config.seed)
    data, task = build(settings)
    device = build_part(settings, "trainer", logger=False).strategy.root_device
    contestants: dict[str, Callable[[], float]] = {"framework": lambda: framework_step(settings, data, task, steps)}
    if config.compiled:
        fast = build(settings)[1]
        fast.step = compiled(fast.step)
        contestants["framework, compiled"] = lambda: framework_step(settings, data, fast, steps)
        if device.type == "cuda":
            recorded = build(settings)[1]
            recorded.step = compiled(recorded.step, cuda_graphs=True)
            contestants["framework, CUDA graphs"] = lambda: framework_step(settings, data, recorded, steps, fixed_shapes=True)
    for name, distinct in (("bare loop, distinct items once", True), ("bare loop, every row encoded", False)):
        bare = BareLoop(data, settings, distinct, device)
        contestants[name] = lambda bare=bare: bare.run(WARM_UP, steps, now)  # type: ignore[misc]
    with peers.started(config.benchmark.peers, data, settings, steps) as others:
        contestants |= others
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(config.rounds):
            for name, run in contestants.items():
                seconds[name].append(run())
    step = {name: statistics.median(values) for name, values in seconds.items()}
    record = {
        "data": data.reader.name,
        "model": config.model._target_.split(".")[-1],
        "loss": config.loss.task._target_.split(".")[-1],
        "batch_size": data.batch_size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "step_ms": {name: 1000 * value for name, value in step.items()},
        "positives_per_second": {name: data.batch_size / value for name, value in step.items()},
        "speed_ratios": {  # of rates: above 1 the framework is the faster one
            name: [theirs / ours for ours, theirs in zip(seconds["framework"], values, strict=True)]
            for name, values in seconds.items()
        },
        "parts_ms": {
            name: 1000 * value for name, value in parts_of_a_step(data, task.to(device), steps, step["framework"]).items()
        },
        "evaluation_seconds": evaluation_seconds(settings, data, task),
        "evaluated_users": len(data.tables["position/test"]),
        "preparation_seconds": data.meta.get("seconds"),
        "peak_memory_bytes": results.peak_memory_bytes(),
        "versions": results.versions(),
    }
    _print(record)
    if config.output:
        results.write_json(Path(config.output), record)
    return record


def parts_of_a_step(data: Any, task: Any, steps: int, whole: float) -> dict[str, float]:
    """Mean seconds of each part of a step, in a loop without Lightning; ``framework`` is what is left of the ``whole``."""
    optimizer = task.optimizer(task.model.parameters())
    total = dict.fromkeys(("feeding", "gather", "forward", "backward", "optimizer"), 0.0)
    loader = iter(data.train_dataloader())
    for step in range(WARM_UP + steps):
        times = [now()]
        index = next(loader, None) or next(loader := iter(data.train_dataloader()))
        times.append(now())
        batch = data.train_batch(index._replace(position=index.position.to(task.device)))
        times.append(now())
        loss = task.step(batch).total
        times.append(now())
        optimizer.zero_grad()
        loss.backward()
        times.append(now())
        optimizer.step()
        times.append(now())
        if step >= WARM_UP:
            for name, before, after in zip(total, times, times[1:], strict=False):
                total[name] += (after - before) / steps
    return {**total, "framework": whole - sum(total.values())}


class StepClock(Callback):
    """Mean seconds per step after the warm-up."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start after the warm-up, read at the end."""
        if trainer.global_step == WARM_UP:
            self.started = now()
        if trainer.global_step == trainer.max_steps:
            self.seconds = (now() - self.started) / (trainer.max_steps - WARM_UP)


def framework_step(config: DictConfig, data: Any, task: Any, steps: int, fixed_shapes: bool = False) -> float:
    """Seconds per step of ``trainer.fit``, everything included."""
    clock = StepClock()
    quiet: dict[str, Any] = {"enable_checkpointing": False, "limit_val_batches": 0}
    steps_alone = {"enable_progress_bar": False, "max_steps": WARM_UP + steps, "max_epochs": -1}
    config.trainer = {**config.trainer, **steps_alone}
    data.fixed_shapes = fixed_shapes
    trainer = build_part(config, "trainer", logger=False, callbacks=[clock], **quiet)
    trainer.fit(task, data)
    data.fixed_shapes = False
    return clock.seconds


def evaluation_seconds(config: DictConfig, data: Any, task: Any) -> float:
    """Seconds to encode the corpus and rank it for every test user."""
    config.trainer = {**config.trainer, "limit_test_batches": 1.0}
    trainer = build_part(config, "trainer", logger=False, callbacks=[], enable_checkpointing=False)
    started = now()
    trainer.test(task, data, verbose=False)
    return now() - started


def now() -> float:
    """Seconds, after all that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _print(record: dict[str, Any]) -> None:
    title = f"{record['model']}, {record['loss']}, {record['data']}, batch {record['batch_size']:,}, {record['threads']} threads"
    table = Table(title=title)
    table.add_column("what")
    for name in ("ms per step", "positives/s", "framework's rate / its rate", "range"):
        table.add_column(name, justify="right")
    for name, value in record["step_ms"].items():
        ratios = record["speed_ratios"][name]
        row = (f"{value:.2f}", f"{record['positives_per_second'][name]:,.0f}", f"{statistics.median(ratios):.2f}")
        table.add_row(name, *row, f"{min(ratios):.2f} to {max(ratios):.2f}")
    parts = ", ".join(f"{name} {value:.2f}" for name, value in record["parts_ms"].items())
    table.caption = (
        f"medians of {len(record['speed_ratios']['framework'])} rounds\na framework step in ms: {parts}\n"
        f"evaluation of {record['evaluated_users']:,} users: {record['evaluation_seconds']:.1f} s; "
        f"preparation of the data, once: {record['preparation_seconds'] or 0:.1f} s; "
        f"peak memory {record['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )
    PlainConsole().print(table)
