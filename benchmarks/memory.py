"""Measures training from windows of mapped data beside training with all data in memory: speed, memory, and its formula."""

import multiprocessing as mp
import statistics
import threading
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from benchmarks.timing import now
from twotower.errors import UserError
from twotower.run import results
from twotower.run.build import build, build_part, seed_everything
from twotower.types import TrainIndex

WARM_UP = 5
MODES = ("memory", "windows")
TRANSIENT = 5  # arrays of 8 bytes a place that live while a window is made, its result included


def measure(
    config: DictConfig, sizes: list[int], num_items: int, rounds: int, steps: int
) -> dict[str, Any]:
    """Positives per second and peak memory for each of ``sizes``, from memory and from windows, in turn.

    Each way has a process of its own, which waits while the other one works. Its step is that of training, without Lightning;
    ``feed`` is the making of the batch alone.

    Raises:
        UserError: without a window.
    """
    if config.data.shuffle_window is None:
        raise UserError("give a window: data.shuffle_window=1000000")
    sizes = sorted(sizes)
    settings = {size: _settings(config, size, num_items) for size in sizes}
    workers = {(size, mode): Worker(settings[size], mode) for size in sizes for mode in MODES}
    try:
        turns = [{key: worker.ask(steps) for key, worker in workers.items()} for _ in range(rounds)]
        found: dict[int, dict[str, Any]] = {size: {} for size in sizes}
        for (size, mode), worker in workers.items():
            own = found[size][mode] = worker.ask(0)
            for kind in ("train", "feed"):
                seconds = statistics.median(turn[size, mode][kind] for turn in turns)
                own[f"{kind}_per_second"] = config.data.batch_size / seconds
                own[f"{kind}_beside_smallest"] = _rate_ratio(
                    turns, kind, (size, mode), (sizes[0], mode)
                )
            smallest = found[sizes[0]][mode]
            own["expected"] = smallest["anonymous"] + own["growing"] - smallest["growing"]
        for size in sizes:
            for kind in ("train", "feed"):
                found[size][f"{kind}_ratio"] = _rate_ratio(
                    turns, kind, (size, "windows"), (size, "memory")
                )
    finally:
        for worker in workers.values():
            worker.stop()
    return {"shuffle_window": config.data.shuffle_window, "num_items": num_items, "sizes": found}


def _rate_ratio(
    rounds: list[dict[Any, dict[str, float]]], kind: str, one: Any, other: Any
) -> float:
    """Rate of one beside that of another, the median over rounds."""
    return statistics.median(each[other][kind] / each[one][kind] for each in rounds)


def _settings(config: DictConfig, size: int, num_items: int) -> Any:
    """A plain config of ``size`` interactions, which are written if they are not there."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    settings["data"]["reader"] = {
        "_target_": "benchmarks.random_clicks.RandomClicks",
        "num_interactions": size,
        "num_items": num_items,
        "history": config.data.history_length > 0,
    }
    data = build_part(settings, "data")
    with data.preparation.alone():
        if not data.folder.exists():
            data.reader.write(data.folder)
    return settings


class Worker:
    """A process that trains when asked to.

    Args:
        config: plain, as ``train.yaml`` composes it.
        mode: ``memory``: all arrays are copied into memory and shuffled at once; ``windows``: they stay mapped.
    """

    def __init__(self, config: Any, mode: str) -> None:
        context = mp.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=_work, args=(other, config, mode, torch.get_num_threads()), daemon=True
        )
        self.process.start()
        other.close()

    def ask(self, steps: int) -> dict[str, Any]:
        """Seconds per step and for feeding one, after ``steps`` of each; of 0 steps, what the whole process took."""
        self.connection.send(steps)
        found = self.connection.recv()
        if isinstance(found, UserError):
            raise found
        return found

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()


def _work(connection: Connection, config: Any, mode: str, threads: int) -> None:
    """Answer until stopped; what the user can mend is sent as the answer."""
    try:
        _answer(connection, config, mode, threads)
    except UserError as error:
        connection.send(error)


def _answer(connection: Connection, config: Any, mode: str, threads: int) -> None:
    torch.set_num_threads(threads)
    memory = AnonymousPeak()
    started = now()
    if mode == "memory":
        config["data"]["shuffle_window"] = None
    seed_everything(config["seed"])
    data, task = build(config)
    if mode == "memory":
        data.tables = {name: table.clone() for name, table in data.tables.items()}
    optimizer = task.optimizer(task.model.parameters())  # type: ignore[misc]
    batches = chain.from_iterable(repeat(data.train_dataloader()))  # one epoch after another

    def train(index: TrainIndex) -> None:
        batch = data.train_batch(index)
        optimizer.zero_grad()
        task.loss(task.model(batch), batch).total.backward()  # type: ignore[misc]
        optimizer.step()

    train(next(batches))
    first = now() - started
    assert isinstance(task.model, torch.nn.Module)
    growing = growing_bytes(data, task.model, mode)
    while True:
        steps = connection.recv()
        if steps:
            found = {
                "train": _seconds(train, batches, steps),
                "feed": _seconds(data.train_batch, batches, steps),
            }
        else:
            peaks = {"anonymous": memory.peak, "resident": results.peak_memory_bytes()}
            found = {"seconds_to_first_step": first, "growing": growing, **peaks}
        connection.send(found)


def _seconds(step: Callable[[TrainIndex], Any], batches: Iterator[TrainIndex], steps: int) -> float:
    """Seconds per step, after a warm-up."""
    for _ in range(WARM_UP):
        step(next(batches))
    started = now()
    for _ in range(steps):
        step(next(batches))
    return (now() - started) / steps


def growing_bytes(data: Any, model: torch.nn.Module, mode: str) -> float:
    """Memory that grows with the data, by the formula of docs/performance.md; libraries and batches take the rest."""
    num = len(data.tables["position/train"])
    parameters = sum(
        4 * weight.numel() + 4 * len(weight) for weight in model.parameters()
    )  # and row-wise Adagrad's state
    ids = 4 * (data.meta["num_users"] + data.schema.num_items)
    if mode == "memory":
        return parameters + ids + sum(table.nbytes for table in data.tables.values()) + 8 * num
    window = data.shuffle_window
    return (
        parameters + ids + (8 * window * (1 + TRANSIENT) if num > window else 8 * num)
    )  # one is used while another is made


class AnonymousPeak:
    """Watches how much memory this process has that is no mapped file; Linux alone tells."""

    def __init__(self) -> None:
        self.peak = self._now()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not threading.Event().wait(0.02):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next(
            (1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0
        )


def table(record: dict[str, Any]) -> Table:
    """Rates and memory by size."""
    title = f"{record['model']}, {record['optimizer']}, batch {record['batch_size']:,}, windows of {record['shuffle_window']:,}"
    shown = Table(
        title=f"{title}, {record['num_items']:,} items, {record['threads']} threads", pad_edge=False
    )
    smallest = f"beside {min(record['sizes']):,}"
    columns = (
        "interactions",
        "from",
        "positives/s",
        "beside memory",
        smallest,
        "fed/s",
        "start, s",
        "MiB",
        "formula",
    )
    for column in (*columns, "mapped too"):
        shown.add_column(column, justify="right")
    for size, found in record["sizes"].items():
        for mode in MODES:
            own = found[mode]
            shown.add_row(
                f"{size:,}",
                mode,
                f"{own['train_per_second']:,.0f}",
                f"{found['train_ratio']:.3f}" if mode == "windows" else "",
                f"{own['train_beside_smallest']:.3f}",
                f"{own['feed_per_second']:,.0f}",
                f"{own['seconds_to_first_step']:.1f}",
                *(f"{own[name] / 2**20:,.0f}" for name in ("anonymous", "expected", "resident")),
            )
    shown.caption = "medians of rounds in turn over all; peak memory of each process; the formula starts from the smallest"
    return shown
