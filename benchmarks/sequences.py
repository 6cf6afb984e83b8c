"""Positions trained per second: all positions of a user in one pass, and row by row."""

import statistics
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from benchmarks.step import framework_step
from benchmarks.timing import in_turn
from twotower.run.build import build

FORMS = ("interactions", "sequences")  # of data.positives


def measure(config: DictConfig, rounds: int, steps: int) -> dict[str, Any]:
    """Rates of ``trainer.fit`` with each form of ``data.positives``, in turn in each round."""
    OmegaConf.set_struct(config, False)
    contestants = {}
    for form in FORMS:
        config.data.positives = form
        data, task = build(config)
        contestants[form] = partial(framework_step, config, data, task, steps)
    seconds = in_turn(contestants, rounds)
    return {
        "data": data.reader.name,
        "history": config.model.history._target_.split(".")[-1],
        "history_length": config.data.history_length,
        "positions_per_second": {
            form: data.batch_size / statistics.median(values) for form, values in seconds.items()
        },
        "ratios": [
            rows / sequences
            for rows, sequences in zip(*(seconds[form] for form in FORMS), strict=True)
        ],
    }


def table(record: dict[str, Any]) -> Table:
    """Rates of both forms, and how many times as fast sequences are."""
    title = f"{record['model']}, {record['history']}, {record['data']}"
    title = f"{title}, batch {record['batch_size']:,}, {record['threads']} threads"
    ratios = record["ratios"]
    times = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    caption = f"sequences are {times} times as fast, histories of {record['history_length']}"
    shown = Table("data.positives", title=title, caption=caption)
    shown.add_column("positions/s", justify="right")
    for form, rate in record["positions_per_second"].items():
        shown.add_row(form, f"{rate:,.0f}")
    return shown
