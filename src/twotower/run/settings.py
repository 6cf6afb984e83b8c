"""Which settings make a run what it is: two runs that agree in all of them differ by their seed alone."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

ROOTS = ("data", "negatives", "model", "loss", "optimizer", "scheduler", "trainer", "callbacks")
MACHINE = (  # how and where it ran, and what it showed
    "data.reader",  # the fingerprint tells data apart
    "data.eval_batch_size",
    "model.sharding",
    "trainer.accelerator",
    "trainer.devices",  # counted in trainer.num_processes
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_",
    "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps",
    "trainer.default_root_dir",
    "callbacks.last",
    "callbacks.progress",
    "callbacks.speed",
    "callbacks.throughput",
    "callbacks.diagnostics",
)
WITHOUT_EFFECT = (  # on a result: a run that differs in these alone need not be run again
    "paths.cache_dir",
    "paths.output_dir",
    "paths.run_dir",
    "logger",
    "ckpt_path",
    "trusted",
    "dry",
    "sweep",
    "callbacks.progress",
    "model.sharding",
    "trainer.enable_progress_bar",
)
PATHS = ("data_dir", "cache_dir", "dirpath", "save_dir")  # names of settings that say where, whatever they belong to

ADDRESS = re.compile(r"\w*(url|sha256|mirror)s?")  # a reader's settings for downloads
LAUNCH = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")  # a command that resumes has to repeat them

Value = str | int | float | bool | None


def flat(config: dict[str, Any], num_processes: int | None = None, repeats: Sequence[str] = ()) -> dict[str, Value]:
    """What tells variants apart, as dotted names: no seed, no path, nothing of the machine but the number of processes.

    Args:
        config: plain; an interpolation repeats a value that stands elsewhere, so it is left out.
        num_processes: a batch is per process, so this is part of the experiment; None: as many as the trainer asks for.
        repeats: dotted names of values that were interpolations before the config was resolved.
    """
    found: dict[str, Value] = {}
    for root in ROOTS:
        if root in config:
            _flatten(root, config[root], found)
    found["trainer.num_processes"] = num_processes or processes(config.get("trainer") or {})
    return {key: value for key, value in found.items() if is_setting(key) and key not in repeats}


def is_setting(key: str) -> bool:
    """Does the setting called ``key`` make a run another experiment?"""
    return key.split(".")[0] in ROOTS and not key.startswith(MACHINE) and key.split(".")[-1] not in PATHS


def key_of(override: str) -> str:
    """The key of an override as a dotted name: ``model.history`` of ``model/history=gru``."""
    return override.split("=", 1)[0].lstrip("+~").replace("/", ".").split("@")[0]


def is_within(key: str, roots: Iterable[str]) -> bool:
    """Is the setting called ``key`` one of ``roots``, or a part of one?"""
    return any(key == root or key.startswith(f"{root}.") for root in roots)


def processes(trainer: dict[str, Any]) -> int | None:
    """How many the trainer asks for, None if that depends on the machine."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes", 1)
    devices = len(devices) if isinstance(devices, list) else devices
    return devices * nodes if isinstance(devices, int) and devices > 0 and isinstance(nodes, int) else None


def _flatten(key: str, value: Any, found: dict[str, Value]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            _flatten(f"{key}.{name}", inner, found)
    elif isinstance(value, (dict, list)):
        found[key] = json.dumps(value)
    elif not (isinstance(value, str) and "${" in value):
        found[key] = value
