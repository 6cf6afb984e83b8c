"""The table that decides what each setting does to a run, for sweeps, reports and W&B."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twotower.files import short_hash

# roots that a checkpoint decides
FIXED = ("data", "negatives", "model", "loss", "optimizer", "scheduler", "metric", "seed")
PLACES = ("data_dir", "cache_dir")  # settings of data that the command decides
# a command that resumes has to repeat these: no checkpoint decides them
REPEATED = (
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("paths.data_dir", "paths.cache_dir", "trusted"),
)
ADDRESS = re.compile(r"\w*(url|sha256|mirror)s?")  # a reader's settings for downloads
FOLDER = re.compile(r"data_dir|cache_dir|dirpath|save_dir")  # of any node
# null: derived from the size of the data, see twotower.run.derive
DERIVED = (
    "data.batch_size",
    "model.hidden_dims",
    "loss.task.temperature",
    "trainer.max_epochs",
    "callbacks.early_stopping.patience",
)
# settings newer than some runs, with the value that does what was done before them: it is unset
ADDED: dict[str, Any] = {
    "data.hashes": 2,
    "data.history_times": False,
    "data.reader.category_exponent": 1.0,
    "data.reader.style_exponent": 0.0,
    "data.split.targets": "all",
    "data.thinning_seed": 0,
    "loss.mimic_target": "own",
    "model.augment_momentum": 0.9,
    "model.history.activation": "relu",
    "model.history.block": "pre",
    "model.history.input_scale": "none",
    "model.history.network_ratio": 1,
    "model.history.positions": "end",
    "model.item_dropout": 0.0,
    "model.tower": "mlp",
    "negatives.first.weight": 1.0,
    "negatives.weight": 1.0,
    "test": True,
}
DEFAULT_DATA_DIR = "${oc.env:TWOTOWER_DATA_DIR"  # the default of paths.data_dir starts with this

Value = str | int | float | bool | None


class Kind(Enum):
    """What a setting does to a run."""

    VARIANT = "runs that differ in it are two variants"
    DATA = "chooses the data, which reports tell apart by their fingerprint"
    MEASURE = "the same training, other figures"
    SEED = "another run of the same variant"
    PROCESSES = "counts as their number, trainer.num_processes: a batch is per process"
    MACHINE = "how and where it runs, and what it shows: the same result"


TABLE = {  # each line decides a setting and all below it that have no line of their own
    Kind.VARIANT: (
        "data",
        "negatives",
        "model",
        "loss",
        "optimizer",
        "scheduler",
        "callbacks.average.decay",
        "callbacks.best",
        "callbacks.early_stopping",
        "callbacks.pruning",
        "trainer._target_",
        "trainer.check_val_every_n_epoch",
        "trainer.deterministic",
        "trainer.limit_test_batches",
        "trainer.limit_train_batches",
        "trainer.limit_val_batches",
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.num_processes",
        "trainer.precision",
        "trainer.use_distributed_sampler",
    ),
    Kind.DATA: ("data.reader", "paths.data_dir"),
    Kind.MEASURE: ("metric", "test"),
    Kind.SEED: ("seed",),
    Kind.PROCESSES: ("trainer.devices", "trainer.num_nodes"),
    Kind.MACHINE: (
        *("budget", "pruner", "sampler", "search", "searched", "seeds", "trials_at_once"),
        "callbacks.average",
        "callbacks.diagnostics",
        "callbacks.epochs",
        "callbacks.last",
        "callbacks.progress",
        "callbacks.speed",
        "callbacks.throughput",
        "ckpt_path",
        "data.eval_batch_size",
        "dry",
        "hydra",
        "logger",
        "loss.task.chunk",
        "model.sharding",
        "paths",
        "sweep",
        "trainer.accelerator",
        "trainer.default_root_dir",
        "trainer.enable_checkpointing",
        "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
        "trainer.log_every_n_steps",
        "trainer.num_sanity_val_steps",
        "trainer.strategy",
        "trusted",
    ),
}
KINDS = {key: kind for kind, keys in TABLE.items() for key in keys}


def decided(key: str) -> Kind | None:
    """What the table says of a setting, None if it has no line for it.

    Args:
        key: dotted name of a setting, or of a config group.
    """
    last = key.split(".")[-1]
    if key not in KINDS and (
        FOLDER.fullmatch(last) or (key.startswith("data.") and ADDRESS.fullmatch(last))
    ):
        return Kind.MACHINE
    while key and key not in KINDS:
        key = key.rpartition(".")[0]
    return KINDS.get(key)


def kind_of(key: str) -> Kind:
    """What a setting does to a run; a setting that the table does not know makes an experiment."""
    return decided(key) or Kind.VARIANT


def makes_variant(key: str) -> bool:
    """Are two runs that differ in this setting two variants?"""
    return kind_of(key) is Kind.VARIANT


def changes_result(key: str) -> bool:
    """Must a finished run be repeated for another value of this setting?"""
    return kind_of(key) is not Kind.MACHINE


def names_variant(key: str) -> bool:
    """Is the setting part of the name that all seeds of a variant share? A folder is not."""
    return changes_result(key) and kind_of(key) is not Kind.SEED and key != "paths.data_dir"


def is_unset(key: str, value: Value) -> bool:
    """Is a value that of a run from before its setting was there?"""
    return value is None or (key in ADDED and value == ADDED[key])


def flat(
    config: dict[str, Any], num_processes: int | None = None, repeats: Sequence[str] = ()
) -> dict[str, Value]:
    """The settings that tell variants apart, by dotted names.

    Args:
        config: plain. Interpolations are left out: they repeat the value of another setting.
        num_processes: None: as many as the trainer asks for.
        repeats: dotted names of values that were interpolations before the config was resolved.
    """
    found: dict[str, Value] = {}
    for key, value in leaves("", config):
        is_repeat = key in repeats or (isinstance(value, str) and "${" in value)
        if makes_variant(key) and not is_repeat:
            found[key] = value
    found["trainer.num_processes"] = num_processes or processes(config.get("trainer") or {})
    return found


def fingerprint(config: DictConfig) -> str:
    """A hash of the settings that decide a run's result.

    Unset values are left out, so that a new setting that does nothing leaves older runs unchanged.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    found = {
        key: value
        for key, value in leaves("", plain)
        if changes_result(key) and not is_unset(key, value)
    }
    if str(found.get("paths.data_dir", "")).startswith(DEFAULT_DATA_DIR):
        del found["paths.data_dir"]  # a folder that is given holds other data; the default does not
    num_processes = processes(plain.get("trainer") or {})
    if num_processes is not None:
        found = {key: value for key, value in found.items() if kind_of(key) is not Kind.PROCESSES}
        found["trainer.num_processes"] = num_processes
    return short_hash(json.dumps(found, sort_keys=True), 16)


def key_of(override: str) -> str:
    """The key of an override as a dotted name: ``model.history`` of ``model/history=gru``."""
    return override.split("=", 1)[0].lstrip("+~").replace("/", ".").split("@")[0]


def repeated(overrides: Iterable[str]) -> list[str]:
    """The overrides that a command has to repeat to resume the run."""
    return [text for text in overrides if key_of(text) in REPEATED]


def is_within(key: str, roots: Iterable[str]) -> bool:
    """Is the setting called ``key`` one of ``roots``, or a part of one?"""
    return any(key == root or key.startswith(f"{root}.") for root in roots)


def processes(trainer: dict[str, Any]) -> int | None:
    """The number of processes of a trainer, None if it depends on the machine."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes", 1)
    devices = len(devices) if isinstance(devices, list) else devices
    is_known = isinstance(devices, int) and devices > 0 and isinstance(nodes, int)
    return devices * nodes if is_known else None


def leaves(key: str, value: Any) -> Iterator[tuple[str, Value]]:
    """Dotted names and values; a list, and an empty dictionary, is one value."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, (dict, list)):
        yield key, json.dumps(value)
    else:
        yield key, value
