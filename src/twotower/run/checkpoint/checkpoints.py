"""Reading of checkpoints without running code from them, and the config that rebuilds their run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from torch import Tensor

from twotower.errors import UserError
from twotower.run import settings
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.file import checkpoint_file, naming
from twotower.run.checkpoint.saved_config import Plain, put, select
from twotower.run.checkpoint.trusted import check_targets, trusted_packages
from twotower.run.moved import renamed
from twotower.run.settings import ADDRESS, FIXED, PLACES
from twotower.training.run_info import RunInfo
from twotower.wording import printable

# roots that the command decides, not the checkpoint
FROM_COMMAND = ("paths", "trainer", "callbacks", "logger", "ckpt_path", "test", "budget")
Text = Annotated[str, AfterValidator(printable)]
Option = Annotated[str, Field(pattern=r"^\w[\w+-]*([./]\w[\w+-]*)*$")]  # a file of conf/


class About(BaseModel):
    """What ``RunInfo`` writes into a checkpoint."""

    model_config = ConfigDict(strict=True)
    choices: dict[str, Option | None]
    overrides: list[Text]
    config: dict[str, Any]
    repeats: list[str]
    settings: dict[str, str | int | float | bool | None]
    fingerprint: str
    val: dict[str, FiniteFloat]


class Content(BaseModel):
    """The parts of a checkpoint that every command reads."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    twotower: About
    state_dict: dict[str, Tensor]


def load_checkpoint(path: str | Path, trusted: str | Iterable[str] | None = None) -> dict[str, Any]:
    """Read a checkpoint whose run is to be rebuilt: its config names only classes that it may name.

    Args:
        path: an ordinary file.
        trusted: packages whose classes the config may name; None: those of ``TWOTOWER_TRUSTED``.

    Returns:
        See :func:`read_checkpoint`.

    Raises:
        UserError: if it was not written by this project, is damaged, or would build anything else.
    """
    packages = trusted_packages(trusted)
    checkpoint = read_checkpoint(path)
    info: RunInfo = checkpoint["twotower"]
    with naming(checkpoint["path"]):
        if missing := [key for key in ("model", "data") if not info.choices.get(key)]:
            raise UserError(f"its choices have no {missing[0]}")
        config = saved_config.kept(renamed(info.config))
        check_targets(config, packages)
    info = info._replace(config=config, settings=renamed(info.settings))
    return {**checkpoint, "twotower": info}


def read_checkpoint(path: str | Path, mmap: bool = True) -> dict[str, Any]:
    """Read a checkpoint without looking at what its config would build.

    Args:
        path: an ordinary file.
        mmap: leave its tensors in the file, which processes of one machine share.

    Returns:
        What Lightning has written; ``twotower`` is a ``RunInfo`` without ``schema``, and ``path``
        is for messages.

    Raises:
        UserError: if it was not written by this project, or is damaged.
    """
    file = checkpoint_file(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)
        content = Content.model_validate(checkpoint)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            printable(
                f"ckpt_path={file} is not a checkpoint of this project: {where}: {first['msg']}"
            )
        ) from error
    except Exception as error:
        reason = printable((str(error).splitlines() or [""])[0])
        if "Weights only load failed" in reason:  # torch continues with how to run its code
            reason = "it holds more than tensors and plain values"
        raise UserError(f"ckpt_path={file} cannot be read as a checkpoint: {reason}") from error
    info = RunInfo(**content.twotower.model_dump())
    return {**checkpoint, "twotower": info, "path": str(file)}


def restore_config(info: RunInfo, config: Plain) -> Plain:
    """The checkpoint's config, with the command's paths, trainer, logger and callbacks.

    Another number of processes may have another ``data.batch_size``, so that all together take as
    many positives as before, and tables may be sharded in another way. A command that does not
    train may choose other metrics.

    Args:
        info: the checkpoint's ``twotower``.
        config: of the command, resolved to plain values.

    Raises:
        UserError: if the command line changes what the checkpoint decides.
    """
    saved = info.config
    found = {root: config[root] for root in FROM_COMMAND if root in config}
    found |= {root: saved[root] for root in FIXED if root in saved}
    trains = "data" in config
    if config.get("metric") and not trains:
        found["metric"] = config["metric"]  # the same weights, other figures
    _use_own_places(found, info, config["paths"])
    choices, given, whole_batch = HydraConfig.get().runtime.choices, set(), _whole_batch(saved)
    overrides = list(HydraConfig.get().overrides.task)
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        root, last = settings.key_of(key).split(".")[0], key.split(".")[-1]
        if root == "metric" and not trains:
            continue
        if key in choices:
            if root in FIXED or root not in config:
                _check_same(override, choices[key], info.choices.get(key), f"{key}=")
            given.add(root)
        elif root not in FIXED:
            given.add(key)
        elif root == "data" and (ADDRESS.fullmatch(last) or last in PLACES):
            put(found, key, select(config, key))
        elif key == "data.batch_size" and whole_batch and _whole_batch(config) == whole_batch:
            put(found, key, select(config, key))  # per process: the same number in other parts
        elif key == "model.sharding" and trains:
            put(found, key, select(config, key))  # checkpoints hold whole tables
        elif key in settings.DERIVED and select(config, key) is None:
            continue  # the checkpoint holds the value that was derived
        elif not all(settings.is_unset(key, select(one, key)) for one in (config, saved)):
            _check_same(override, select(config, key), select(saved, key))
    saved_config.take_up(found, saved, given)
    if trains:
        _check_whole_batch(found, whole_batch)
    return found


def own_config(info: RunInfo, paths: Plain) -> Plain:
    """The checkpoint's config for use on this machine, without a command line.

    Args:
        info: the checkpoint's ``twotower``.
        paths: ``data_dir`` and ``cache_dir``.
    """
    found = {**info.config, "paths": paths}
    _use_own_places(found, info, paths)
    return found


def _use_own_places(config: Plain, info: RunInfo, paths: Plain) -> None:
    """Take folders from the command, and addresses of downloads from ``conf/``."""
    config["data"] = {**config["data"], **{key: paths[key] for key in PLACES}}
    reader = {**config["data"]["reader"], **saved_config.addresses(info.choices["data"])}
    config["data"]["reader"] = reader


def _check_same(override: Override, value: Any, saved: Any, prefix: str = "") -> None:
    if value != saved:
        raise UserError(
            f"{override.input_line}: the checkpoint has {prefix}{saved}; start a new run for "
            "another value"
        )


def _check_whole_batch(config: Plain, saved: int | None) -> None:
    """Refuse a number of processes that would change how many positives a step takes."""
    whole = _whole_batch(config)
    if None in (saved, whole) or saved == whole:
        return
    num, size = settings.processes(config["trainer"]), config["data"]["batch_size"]
    raise UserError(
        f"the checkpoint's steps take {saved} positives, {num} processes of "
        f"data.batch_size={size} would take {whole}: set data.batch_size={saved}/{num}, or as many "
        "processes as before (trainer.devices, trainer.num_nodes)"
    )


def _whole_batch(config: Plain) -> int | None:
    """Positives of a step of all processes; None if their number depends on the machine."""
    size, num = select(config, "data.batch_size"), settings.processes(config.get("trainer") or {})
    return size * num if isinstance(size, int) and num is not None else None
