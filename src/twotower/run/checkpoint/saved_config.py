"""The part of a run's config that its checkpoints carry, and how a command takes it up again.

A checkpoint decides what was trained: data, negatives, model, loss, optimizer, scheduler, metrics
and seed. Of trainer and callbacks it carries numbers, words and lists of them. Paths, addresses of
downloads, loggers, every object that trainer or callbacks are given, and the number of processes
come from the command that reads it. All values are plain: none is interpolated again.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twotower.errors import UserError
from twotower.run.checkpoint.trusted import targets
from twotower.run.conf import CONF
from twotower.run.settings import ADDRESS, FIXED, FOLDER, PLACES, is_within

FROM_COMMAND = ("strategy", "default_root_dir")  # settings of the trainer
PROCESSES = ("devices", "num_nodes")  # carried for the size of a whole batch, and not taken up

Plain = dict[str, Any]


def resolved(config: DictConfig) -> tuple[Plain, list[str]]:
    """A composed config as plain values, and the dotted names of those that repeat another one.

    The names tell settings apart that were made, such as ``seed``, from those that follow from
    them, such as ``data.seed: ${seed}``.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain, list(_interpolations(raw, ""))


def kept(config: Plain) -> Plain:
    """What a checkpoint carries of a config of plain values.

    It is applied when a checkpoint is read, too: somebody else may have written more into it.
    """
    found = copy.deepcopy({root: config[root] for root in FIXED if root in config})
    for key in PLACES:
        found["data"].pop(key, None)
    reader = found["data"]["reader"]
    found["data"]["reader"] = {key: reader[key] for key in reader if not ADDRESS.fullmatch(key)}
    found["trainer"] = _settings(config.get("trainer") or {})
    found["callbacks"] = {
        name: None if node is None else _settings(node)
        for name, node in (config.get("callbacks") or {}).items()
    }
    return found


def addresses(option: str) -> Plain:
    """Download settings of ``conf/data/<option>.yaml`` and of the options that it builds on."""
    path = CONF / "data" / f"{option}.yaml"
    if not path.is_file():
        return {}
    node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    found: Plain = {}
    for parent in node.get("defaults", []):
        if isinstance(parent, str) and parent not in ("_self_", option):
            found |= addresses(parent)
    reader = node.get("reader") or {}
    own = OmegaConf.create({key: reader[key] for key in reader if ADDRESS.fullmatch(key)})
    plain: Any = OmegaConf.to_container(own, resolve=True)
    found |= plain
    return found


def select(config: Any, key: str) -> Any:
    """The value with a dotted name, None if there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def put(config: Any, key: str, value: Any) -> None:
    """Set the value with a dotted name."""
    *parents, leaf = key.split(".")
    for part in parents:
        config = config[part]
    config[leaf] = value


def take_up(config: Plain, saved: Plain, given: set[str]) -> None:
    """Bring what a checkpoint carries of trainer and callbacks into the config of a command.

    Args:
        config: of the command.
        saved: see :func:`kept`.
        given: dotted names that the command line sets, and so decides.

    Raises:
        UserError: for a callback of the checkpoint's run that the command does not have.
    """
    if "trainer" in config:
        _update("trainer", config["trainer"], saved["trainer"], given)
    if not config.get("callbacks") or "callbacks" in given:
        return
    callbacks = config["callbacks"]
    for name, node in saved["callbacks"].items():
        place = f"callbacks.{name}"
        if is_within(place, given):
            continue
        if node is None:
            callbacks[name] = None
        elif isinstance(callbacks.get(name), dict):
            _update(place, callbacks[name], node, given)
        else:
            raise UserError(
                f"the checkpoint's run had {place}, which a checkpoint does not carry: repeat the "
                f"settings that made it, or leave it out with +{place}=null"
            )


def _settings(node: Plain) -> Plain:
    """Numbers, words and lists of them; no folder, and nothing that is built."""
    return {
        key: copy.deepcopy(value)
        for key, value in node.items()
        if not key.startswith("_")
        and key not in FROM_COMMAND
        and not FOLDER.fullmatch(key)
        and not any(targets(value))
    }


def _update(place: str, node: Plain, saved: Plain, given: set[str]) -> None:
    for key, value in saved.items():
        if key not in PROCESSES and not is_within(f"{place}.{key}", given):
            node[key] = value


def _interpolations(node: Any, place: str) -> Iterator[str]:
    """Dotted names of the texts that hold an interpolation."""
    pairs: Any = enumerate(node) if isinstance(node, list) else ()
    pairs = node.items() if isinstance(node, dict) else pairs
    for key, value in pairs:
        yield from _interpolations(value, f"{place}.{key}" if place else str(key))
    if isinstance(node, str) and "${" in node:
        yield place
