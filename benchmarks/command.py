"""Command of all benchmarks: build the settings, measure, print and write the results."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from twotower.files import write_json
from twotower.run import results
from twotower.run.build import seed_everything
from twotower.wording import PlainConsole


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Run ``benchmarks/<benchmark>.py``.

    Its ``measure`` takes the benchmark's settings as arguments; its ``table`` shows the results.
    """
    module = importlib.import_module(f"benchmarks.{config.benchmark}")
    own = [name for name in inspect.signature(module.measure).parameters if name != "config"]
    settings = {key: config[key] for key in config if key not in ("benchmark", "output", *own)}
    seed_everything(config.seed)
    parts = OmegaConf.create(settings)
    measured = module.measure(parts, **{name: config[name] for name in own})
    record = {
        "model": config.model._target_.split(".")[-1],
        "optimizer": config.optimizer._target_.split(".")[-1],
        "batch_size": parts.data.batch_size,  # derived when the data were built
        "threads": torch.get_num_threads(),
        **measured,
        "peak_memory_bytes": results.peak_memory_bytes(),
        "versions": results.versions(),
    }
    PlainConsole().print(module.table(record))
    if config.output:
        write_json(Path(config.output), record)
    return record
