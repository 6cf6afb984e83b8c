"""What of a run's config its checkpoints carry, and how a command in hand takes it up again.

A checkpoint decides what was trained: data, negatives, model, loss, optimizer, scheduler, metrics
and seed, as plain values. Of trainer and callbacks it carries numbers and words from the lists
below. Paths, addresses of downloads, loggers, whatever else is built, and how many processes are
started come from the command that reads it.
"""

import copy
import math
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twotower.errors import UserError
from twotower.run.checkpoint.roles import check_roles
from twotower.run.checks.checks import CONF
from twotower.run.settings import ADDRESS, FIXED, PLACES, is_within

OPTIONAL = ("scheduler",)  # of FIXED: a constant learning rate has none
TRAINER = (
    "accelerator", "accumulate_grad_batches", "benchmark", "check_val_every_n_epoch",
    "detect_anomaly", "deterministic", "devices", "enable_model_summary", "enable_progress_bar",
    "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val", "inference_mode",
    "limit_test_batches", "limit_train_batches", "limit_val_batches", "log_every_n_steps",
    "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "num_nodes",
    "num_sanity_val_steps", "precision", "reload_dataloaders_every_n_epochs", "sync_batchnorm",
    "use_distributed_sampler", "val_check_interval",
)  # fmt: skip
CALLBACKS = {
    "best": (
        "monitor",
        "mode",
        "save_top_k",
        "every_n_epochs",
        "every_n_train_steps",
        "save_on_train_epoch_end",
        "auto_insert_metric_name",
        "enable_version_counter",
        "save_last",
        "save_on_exception",
        "save_weights_only",
        "verbose",
    ),
    "last": ("every_n_steps",),
    "early_stopping": (
        *("monitor", "mode", "patience", "min_delta", "strict", "check_finite"),
        *("check_on_train_epoch_end", "stopping_threshold", "divergence_threshold"),
        *("log_rank_zero_only", "verbose"),
    ),
    "progress": ("refresh_rate",),
    "speed": ("compile", "cuda_graphs", "float32_matmul"),
    "diagnostics": (
        "every_n_epochs",
        "num_users",
        "num_items",
        "num_categories",
        "num_train_batches",
        "k",
        "plots",
    ),
}
PROCESSES = ("devices", "num_nodes")  # recorded for the size of a whole batch, and not taken up
WORD = re.compile(r"[\w@/.:+ -]{0,200}")
REFERENCE = re.compile(r"\$\{(\.*)(\w+(?:\.\w+)*)\}")
MOST_HOPS = 8  # from reference to reference
MOST_VALUES = 100  # of a list that is repeated

Plain = dict[str, Any]


def resolved(config: DictConfig) -> tuple[Plain, list[str]]:
    """A composed config as plain values, and the dotted names of those that repeat another one.

    The names tell settings apart that were made, such as ``seed``, from those that follow from
    them, such as ``data.seed: ${seed}``.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain, [".".join(path) for path, text in _texts(raw, ()) if "${" in text]


def kept(config: Plain) -> Plain:
    """What a checkpoint carries of a config of plain values."""
    found = copy.deepcopy({root: config[root] for root in FIXED if root in config})
    for key in PLACES:
        found["data"].pop(key, None)
    reader = found["data"]["reader"]
    for key in list(reader):
        if ADDRESS.fullmatch(str(key)):
            del reader[key]
    found["trainer"] = _listed(config.get("trainer") or {}, TRAINER)
    found["callbacks"] = {
        name: None if node is None else _listed(node, CALLBACKS.get(name, ()))
        for name, node in (config.get("callbacks") or {}).items()
    }
    return found


def read_back(
    config: Plain, is_plain: bool, trusted: tuple[str, ...] = ()
) -> tuple[Plain, list[str]]:
    """The config that a file claims, as :func:`kept` writes it, fit to be built from.

    Args:
        config: from a checkpoint; plain containers.
        is_plain: are its texts meant as they stand? Earlier versions wrote interpolations: of those,
            one that repeats another value of the config is looked up, and no other is evaluated.
        trusted: see :func:`twotower.run.checkpoint.trusted.trusted_packages`.

    Returns:
        The config, and the dotted names of values that were looked up.

    Raises:
        UserError: for other interpolations, targets out of place, and values of a wrong kind.
    """
    if missing := [root for root in FIXED if root not in config and root not in OPTIONAL]:
        raise UserError(f"its config has no {missing[0]}")
    for root in ("data", "trainer", "callbacks"):
        if not isinstance(config.get(root), dict):
            raise UserError(f"its config has no {root}")
    roots = [root for root in FIXED if root in config]
    for root in roots:
        check_roles(root, config[root], trusted)
    for name, node in config["callbacks"].items():
        if not isinstance(node, (dict, type(None))):
            raise UserError(f"its config has {node!r} in the place of callbacks.{name}")
    found = kept(config)
    repeats: list[str] = []
    if not is_plain:
        for path, text in list(_texts(found, ())):
            if "${" in text:
                _put(found, path, _looked_up(config, path, text))
                repeats.append(".".join(path))
        for root in roots:  # again, as values have come in
            check_roles(root, found[root], trusted)
    for place, node in _nodes(found):
        for key, value in node.items():
            if not all(map(_is_word, value if isinstance(value, list) else [value])):
                raise UserError(
                    f"its config has {place}.{key}={value!r}, which is no number or word"
                )
    return found, repeats


def with_addresses(config: Plain, data: str) -> None:
    """Give a checkpoint's reader the addresses that the option ``data=`` has here."""
    reader = config["data"]["reader"]
    found: Any = OmegaConf.create(_addresses(data))
    reader |= OmegaConf.to_container(found, resolve=True)


def select(config: Plain | None, key: str) -> Any:
    """The value with a dotted name, None if there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def put(config: Plain, key: str, value: Any) -> None:
    """Set the value with a dotted name; nodes on the way are made."""
    *parents, leaf = key.split(".")
    for part in parents:
        if not isinstance(config.get(part), dict):
            config[part] = {}
        config = config[part]
    config[leaf] = value


def take_up(config: Plain, saved: Plain, told: set[str]) -> None:
    """Bring what a checkpoint carries of trainer and callbacks into the config of a command.

    Args:
        config: of the command in hand.
        saved: see :func:`read_back`.
        told: dotted names that the command line sets, which it decides.

    Raises:
        UserError: for a callback that the checkpoint's run had, and which is none here.
    """
    if "trainer" in config:
        for key, value in saved["trainer"].items():
            if key not in PROCESSES and not is_within(f"trainer.{key}", told):
                config["trainer"][key] = value
    if "callbacks" not in config:
        return
    if config["callbacks"] is None or "callbacks" in told:
        return
    for name, node in saved["callbacks"].items():
        if is_within(f"callbacks.{name}", told):
            continue
        if node is None:
            config["callbacks"][name] = None
        elif not isinstance(config["callbacks"].get(name), dict):
            raise UserError(
                f"the checkpoint's run had callbacks.{name}, which a checkpoint does not bring: repeat "
                f"the settings that made it, or leave it out with +callbacks.{name}=null"
            )
        else:
            own = {key: node[key] for key in node if not is_within(f"callbacks.{name}.{key}", told)}
            config["callbacks"][name] |= own


def _listed(node: Plain, keys: tuple[str, ...]) -> Plain:
    """The listed settings; a node that builds something is left to the command line."""
    built = [key for key, value in node.items() if isinstance(value, dict) and "_target_" in value]
    return {key: copy.deepcopy(node[key]) for key in keys if key in node and key not in built}


def _nodes(config: Plain) -> Iterator[tuple[str, Plain]]:
    yield "trainer", config["trainer"]
    for name, node in config["callbacks"].items():
        yield f"callbacks.{name}", node or {}


def _is_word(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return (
        value is None
        or isinstance(value, int)
        or (isinstance(value, str) and bool(WORD.fullmatch(value)))
    )


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    pairs: Any = ()
    if isinstance(node, dict):
        pairs = node.items()
    elif isinstance(node, list):
        pairs = enumerate(node)
    else:
        yield path, node
    for key, value in pairs:
        yield from _leaves(value, (*path, str(key)))


def _texts(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    return ((where, leaf) for where, leaf in _leaves(node, path) if isinstance(leaf, str))


def _looked_up(config: Plain, path: tuple[str, ...], text: str) -> Any:
    """The value that a text such as ``${data.history_length}`` repeats; of ``${.dim}``, a neighbour's.

    Raises:
        UserError: if the text is anything else, or what it leads to is no plain value.
    """
    value: Any = text
    where = path
    for _ in range(MOST_HOPS):
        match = REFERENCE.fullmatch(value)
        if match is None:
            break
        dots, key = match.groups()
        base = where[: max(0, len(where) - len(dots))] if dots else ()
        where = (*base, *key.split("."))
        value = select(config, ".".join(where))
        if not isinstance(value, str):
            break
    leaves = [leaf for _, leaf in _leaves(value, ())]
    is_simple = not isinstance(value, dict) and len(leaves) <= MOST_VALUES
    if value is None or not is_simple or any("${" in str(leaf) for leaf in leaves):
        raise UserError(
            f"its config has {'.'.join(path)}={text}, which a checkpoint may not leave to be evaluated"
        )
    return copy.deepcopy(value)


def _put(node: Any, path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[int(path[-1]) if isinstance(node, list) else path[-1]] = value


def _addresses(option: str) -> Plain:
    """Download settings of ``conf/data/<option>.yaml`` and of the options that it builds on."""
    path = CONF / "data" / f"{option}.yaml"
    if not path.is_file():
        return {}
    node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    found: Plain = {}
    for parent in node.get("defaults", []):
        if isinstance(parent, str) and parent not in ("_self_", option):
            found |= _addresses(parent)
    reader = node.get("reader")
    for key, value in reader.items() if isinstance(reader, dict) else ():
        if ADDRESS.fullmatch(key):
            found[key] = value
    return found
