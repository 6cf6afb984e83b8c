"""Training speed of the framework, compared with hand-written loops and other projects."""

import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from rich.table import Table

from benchmarks.bare_loop import BareLoop
from benchmarks.peers.processes import started
from benchmarks.timing import in_turn, now
from twotower.errors import check_number
from twotower.run.build import build, build_part
from twotower.training import callbacks

WARM_UP = 20


def measure(
    config: DictConfig, rounds: int, steps: int, compiled: bool, peers: dict[str, str]
) -> dict[str, Any]:
    """Rates of training, times of the parts of a step, and the time of one full evaluation.

    All programs run in turn in each round. A ratio is the framework's rate divided by the rate of
    another program in the same round.

    Raises:
        UserError: for settings that the bare loop does not implement, and if a peer fails.
    """
    check_number("steps", steps, 2)
    OmegaConf.set_struct(config, False)
    data, task = build(config)
    device = build_part(config, "trainer", logger=False).strategy.root_device
    contestants: dict[str, Callable[[], float]] = {
        "framework": partial(framework_step, config, data, task, steps)
    }
    if compiled:
        contestants["framework, compiled"] = _compiled(config, data, steps)
    if device.type == "cuda":
        contestants["framework, recorded"] = _recorded(config, data, steps)
    for name, distinct in (
        ("bare loop, distinct items once", True),
        ("bare loop, every row encoded", False),
    ):
        contestants[name] = partial(BareLoop(data, config, distinct, device).run, WARM_UP, steps)
    with started(peers, data, config, steps) as others:
        seconds = in_turn(contestants | others, rounds)
    step = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {}  # of rates: above 1 the framework is faster
    for name, values in seconds.items():
        ratios[name] = [
            theirs / ours for ours, theirs in zip(seconds["framework"], values, strict=True)
        ]
    parts = parts_of_a_step(data, task.to(device), steps, step["framework"])
    return {
        "data": data.reader.name,
        "loss": config.loss.task._target_.split(".")[-1],
        "device": str(device),
        "step_ms": {name: 1000 * value for name, value in step.items()},
        "positives_per_second": {name: data.batch_size / value for name, value in step.items()},
        "speed_ratios": ratios,
        "parts_ms": {name: 1000 * value for name, value in parts.items()},
        "evaluation_seconds": evaluation_seconds(config, data, task),
        "evaluated_users": len(data.tables["position/test"]),
        "preparation_seconds": data.meta.get("seconds"),
    }


def _compiled(config: DictConfig, data: Any, steps: int) -> Callable[[], float]:
    """The framework with a compiled step."""
    task = build(config)[1]
    task.step = callbacks.compiled(task.step)
    return partial(framework_step, config, data, task, steps)


def _recorded(config: DictConfig, data: Any, steps: int) -> Callable[[], float]:
    """The framework with steps that are replayed from a recording."""
    speed = callbacks.Speed(record=True, compile=False, float32_matmul="highest")
    # Batches of a recorded step have another shape.
    return partial(framework_step, config, copy.copy(data), build(config)[1], steps, speed)


def parts_of_a_step(data: Any, task: Any, steps: int, whole: float) -> dict[str, float]:
    """Mean seconds of each part of a step, measured in a loop without Lightning.

    ``framework`` is the rest of ``whole``, the seconds of a step with Lightning.
    """
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

    takes_stretches = True  # recorded steps need not stop after each one

    def __init__(self) -> None:
        self.started = self.seconds = 0.0
        self.every_n_steps = WARM_UP  # it has to see the end of the warm-up

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start the clock after the warm-up and read it after the last step."""
        if trainer.global_step == WARM_UP:
            self.started = now()
            self.every_n_steps = 0
        if trainer.global_step == trainer.max_steps:
            self.seconds = (now() - self.started) / (trainer.max_steps - WARM_UP)


def framework_step(
    config: DictConfig, data: Any, task: Any, steps: int, *others: Callback
) -> float:
    """Seconds per step of ``trainer.fit``, with all that Lightning and ``others`` do."""
    clock = StepClock()
    quiet: dict[str, Any] = {"enable_checkpointing": False, "limit_val_batches": 0}
    steps_alone = {"enable_progress_bar": False, "max_steps": WARM_UP + steps, "max_epochs": -1}
    config.trainer = {**config.trainer, **steps_alone}
    trainer = build_part(config, "trainer", logger=False, callbacks=[clock, *others], **quiet)
    trainer.fit(task, data)
    return clock.seconds


def evaluation_seconds(config: DictConfig, data: Any, task: Any) -> float:
    """Seconds to encode the corpus and rank it for every test user."""
    config.trainer = {**config.trainer, "limit_test_batches": 1.0}
    trainer = build_part(config, "trainer", logger=False, callbacks=[], enable_checkpointing=False)
    started = now()
    trainer.test(task, data, verbose=False)
    return now() - started


def table(record: dict[str, Any]) -> Table:
    """Rates of all programs, with the parts of a step below."""
    title = f"{record['model']}, {record['loss']}, {record['data']}, batch {record['batch_size']:,}"
    shown = Table("what", title=f"{title}, {record['threads']} threads")
    for name in ("ms per step", "positives/s", "framework's rate / its rate", "range"):
        shown.add_column(name, justify="right")
    for name, value in record["step_ms"].items():
        ratios = record["speed_ratios"][name]
        row = (
            f"{value:.2f}",
            f"{record['positives_per_second'][name]:,.0f}",
            f"{statistics.median(ratios):.2f}",
        )
        shown.add_row(name, *row, f"{min(ratios):.2f} to {max(ratios):.2f}")
    parts = ", ".join(f"{name} {value:.2f}" for name, value in record["parts_ms"].items())
    num_rounds = len(record["speed_ratios"]["framework"])
    shown.caption = (
        f"medians of {num_rounds} rounds\na framework step in ms: {parts}\n"
        f"evaluation of {record['evaluated_users']:,} users: {record['evaluation_seconds']:.1f} s; "
        f"preparation of the data, once: {record['preparation_seconds'] or 0:.1f} s; "
        f"peak memory {record['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )
    return shown
