"""Training from windows of memory-mapped data, compared with all data in memory.

Measures speed and memory, and compares the memory with the formula of docs/performance.md.
"""

import multiprocessing as mp
import statistics
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
TRANSIENT = 5  # temporary arrays of 8 bytes per position while a window is made, with its result
COLUMNS = {  # header of the table: key of the result, and its format
    "positives/s": ("train_per_second", "{:,.0f}"),
    "beside memory": ("train_ratio", "{:.3f}"),
    "beside smallest": ("train_beside_smallest", "{:.3f}"),
    "fed/s": ("feed_per_second", "{:,.0f}"),
    "fed/s beside memory": ("feed_ratio", "{:.3f}"),
    "start, s": ("seconds_to_first_step", "{:.1f}"),
    "MiB": ("anonymous", "{:,.0f}"),
    "formula": ("expected", "{:,.0f}"),
    "mapped too": ("resident", "{:,.0f}"),
}


def measure(
    config: DictConfig, sizes: list[int], num_items: int, rounds: int, steps: int
) -> dict[str, Any]:
    """Positives per second and peak memory for each of ``sizes``, in both modes in turn.

    Each size and mode has its own process, which waits while another one works. A step is a
    training step without Lightning; ``feed`` only makes the batch.

    Raises:
        UserError: if ``data.shuffle_window`` is not set.
    """
    if config.data.shuffle_window is None:
        raise UserError("data.shuffle_window is not set: set data.shuffle_window=1000000")
    sizes = sorted(sizes)
    settings = {size: with_random_clicks(config, size, num_items) for size in sizes}
    workers = {(size, mode): Worker(settings[size], mode) for size in sizes for mode in MODES}
    try:
        turns = [{key: worker.ask(steps) for key, worker in workers.items()} for _ in range(rounds)]
        measured = {key: worker.ask(0) for key, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()
    for (size, mode), own in measured.items():
        smallest = (sizes[0], mode)
        for kind in ("train", "feed"):
            seconds = statistics.median(turn[size, mode][kind] for turn in turns)
            own[f"{kind}_per_second"] = config.data.batch_size / seconds
            own[f"{kind}_ratio"] = _rate_ratio(turns, kind, (size, mode), (size, "memory"))
            own[f"{kind}_beside_smallest"] = _rate_ratio(turns, kind, (size, mode), smallest)
        start = measured[smallest]["anonymous"] - measured[smallest]["growing"]
        own["expected"] = start + own["growing"]
    by_size = {size: {mode: measured[size, mode] for mode in MODES} for size in sizes}
    return {"shuffle_window": config.data.shuffle_window, "num_items": num_items, "sizes": by_size}


def _rate_ratio(
    turns: list[dict[tuple[int, str], dict[str, float]]],
    kind: str,
    one: tuple[int, str],
    other: tuple[int, str],
) -> float:
    """Ratio of two rates, the median over rounds."""
    return statistics.median(turn[other][kind] / turn[one][kind] for turn in turns)


def with_random_clicks(config: DictConfig, size: int, num_items: int) -> Any:
    """A plain config of ``size`` interactions; writes the interactions if they do not exist."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    settings["data"]["reader"] = {
        "_target_": "benchmarks.random_clicks.RandomClicks",
        "num_interactions": size,
        "num_items": num_items,
        "history": config.data.history_length > 0,
    }
    data = build_part(settings, "data")
    with data.preparation.alone():
        if not data.preparation.folder.exists():
            data.reader.write(data.preparation.folder)
    return settings


class Worker:
    """A process that trains on request.

    Args:
        config: plain, as composed from ``train.yaml``.
        mode: ``memory`` copies all arrays into memory and shuffles them at once; ``windows``
            leaves them memory-mapped.
    """

    def __init__(self, config: Any, mode: str) -> None:
        context = mp.get_context("spawn")
        self.connection, other = context.Pipe()
        given = (other, config, mode, torch.get_num_threads())
        self.process = context.Process(target=_work, args=given, daemon=True)
        self.process.start()
        other.close()

    def ask(self, steps: int) -> dict[str, Any]:
        """Seconds of training and of feeding per step; for 0 steps, memory of the whole process."""
        self.connection.send(steps)
        measured: dict[str, Any] = self.connection.recv()
        return measured

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()


def _work(connection: Connection, config: Any, mode: str, threads: int) -> None:
    """Answer requests until the process is stopped."""
    torch.set_num_threads(threads)
    memory = AnonymousPeak()
    started = now()
    if mode == "memory":
        config["data"]["shuffle_window"] = None
    seed_everything(config["seed"])
    data, task = build(config)
    if mode == "memory":
        data.tables = {name: table.clone() for name, table in data.tables.items()}
    model: Any = task.model
    optimizer = task.optimizer(model.parameters())  # type: ignore[misc]
    batches = chain.from_iterable(repeat(data.train_dataloader()))  # one epoch after another

    def train(index: TrainIndex) -> None:
        batch = data.train_batch(index)
        optimizer.zero_grad()
        task.loss(model(batch), batch).total.backward()  # type: ignore[misc]
        optimizer.step()

    train(next(batches))
    first = now() - started
    while True:
        steps = connection.recv()
        if steps:
            trained = _seconds(train, batches, steps)
            measured = {"train": trained, "feed": _seconds(data.train_batch, batches, steps)}
        else:
            measured = {
                "seconds_to_first_step": first,
                "growing": growing_bytes(data, model, mode),
                "anonymous": memory.peak,
                "resident": results.peak_memory_bytes(),
            }
        connection.send(measured)


def _seconds(step: Callable[[TrainIndex], Any], batches: Iterator[TrainIndex], steps: int) -> float:
    """Seconds per step, after a warm-up."""
    for _ in range(WARM_UP):
        step(next(batches))
    started = now()
    for _ in range(steps):
        step(next(batches))
    return (now() - started) / steps


def growing_bytes(data: Any, model: torch.nn.Module, mode: str) -> int:
    """Memory that grows with the data, by the formula of docs/performance.md."""
    tables: dict[str, torch.Tensor] = data.tables
    num, window = len(tables["position/train"]), int(data.shuffle_window or 0)
    # weights, and the state of row-wise Adagrad
    size: int = sum(4 * weight.numel() + 4 * len(weight) for weight in model.parameters())
    size += 4 * (data.meta["num_users"] + data.schema.num_items)  # ids
    if mode == "memory":
        return size + sum(table.nbytes for table in tables.values()) + 8 * num
    # one window is in use while another is made
    return size + (8 * window * (1 + TRANSIENT) if num > window else 8 * num)


class AnonymousPeak:
    """Peak memory of this process without mapped files (Linux only; 0 on other systems)."""

    def __init__(self) -> None:
        self.peak = self._now()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not threading.Event().wait(0.02):
            self.peak = max(self.peak, self._now())

    def restart(self) -> int:
        """The peak so far; the next one starts from now."""
        peak, self.peak = self.peak, self._now()
        return peak

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status")
        for line in status.read_text().splitlines() if status.exists() else []:
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])
        return 0


def apart(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """What ``work`` returns in a new process, with the peak memory of that process.

    Args:
        work: a function of a module; it is given an :class:`AnonymousPeak` first.
        given: the rest of its arguments.
    """
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as pool:
        return pool.submit(_with_memory, work, *given).result()


def _with_memory(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    memory = AnonymousPeak()
    found = work(memory, *given)
    return {**found, "anonymous": memory.peak, "resident": results.peak_memory_bytes()}


def table(record: dict[str, Any]) -> Table:
    """Rates and memory by size."""
    title = f"{record['model']}, {record['optimizer']}, batch {record['batch_size']:,}"
    items = f"windows of {record['shuffle_window']:,}, {record['num_items']:,} items"
    shown = Table(title=f"{title}, {items}, {record['threads']} threads", pad_edge=False)
    for column in ("interactions", "from", *COLUMNS):
        shown.add_column(column, justify="right")
    for size, measured in record["sizes"].items():
        for mode, own in measured.items():
            cells = []
            for figure, form in COLUMNS.values():
                is_memory = figure in ("anonymous", "expected", "resident")
                cells.append(form.format(own[figure] / 2**20 if is_memory else own[figure]))
            shown.add_row(f"{size:,}", mode, *cells)
    shown.caption = (
        "medians of rounds in turn; peak memory of each process; the formula starts from the "
        "smallest"
    )
    return shown
