"""Checkpoints: read without unpickling code, and the config that rebuilds their run."""

import math
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import Tensor

from twotower.errors import UserError
from twotower.run import settings
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.file import checkpoint_file
from twotower.run.checkpoint.saved_config import Plain, put, select
from twotower.run.checkpoint.trusted import trusted_packages
from twotower.run.moved import renamed
from twotower.run.settings import ADDRESS, FIXED, PLACES
from twotower.types import RunInfo
from twotower.wording import printable

ABROAD = (
    "paths",
    "trainer",
    "callbacks",
    "logger",
    "ckpt_path",
)  # what the command in hand decides
CHOICE = re.compile(r"\w[\w+-]*(?:[./][\w+-]+)*")
GROUP = re.compile(r"[\w/@.]+")
DEEPEST = 16  # levels of containers
MOST = 100_000  # values in them


def load_checkpoint(
    path: str | Path,
    mmap: bool = True,
    rebuilds: bool = True,
    trusted: str | Iterable[str] | None = None,
) -> dict[str, Any]:
    """Read a checkpoint of ours without unpickling code, and check all that can be checked before its model is built.

    Args:
        path: an ordinary file.
        mmap: leave its tensors in the file, which processes of one machine share.
        rebuilds: is its config to be built from? False leaves the config out.
        trusted: packages whose classes the config may name; None: those of ``TWOTOWER_TRUSTED``.

    Returns:
        What Lightning has written, and under ``twotower`` what rebuilds the run, a ``RunInfo`` without
        ``schema``. ``path`` is for messages.

    Raises:
        UserError: if there is none, or it is none of ours, or something in it is not as we write it.
    """
    file, packages = checkpoint_file(path), trusted_packages(trusted)
    try:
        return {**_checked(_unpickled(file, mmap), rebuilds, packages), "path": str(file)}
    except UserError as error:
        raise type(error)(printable(f"ckpt_path={file}: {error}")) from error
    except RecursionError:
        raise UserError(f"ckpt_path={file} is nested too deeply") from None


def _unpickled(file: Path, mmap: bool) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise UserError("is compressed, as this project writes none")
        return torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)
    except UserError:
        raise
    except Exception as error:
        reason = printable((str(error).splitlines() or [""])[0])
        if "Weights only load failed" in reason:  # torch goes on to say how to run its code
            reason = "it holds more than tensors and plain values"
        raise UserError(f"cannot be read as a checkpoint: {reason}") from error


def _checked(checkpoint: Any, rebuilds: bool, trusted: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(checkpoint, dict) or "twotower" not in checkpoint:
        raise UserError("was not written by this project")
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError("has no state_dict")
    for name, value in state.items():
        if not is_dense(value):
            raise UserError(
                f"state_dict has {type(value).__name__} in the place of the tensor {name}"
            )
    info = _checked_about(checkpoint["twotower"])
    if rebuilds:
        info = info._replace(**_checked_config(checkpoint["twotower"], trusted))
    return {**checkpoint, "twotower": info}


def is_dense(value: Any) -> bool:
    """Is it an ordinary tensor with its numbers at hand?

    Strides of zero can make few bytes a tensor that no memory holds.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    return value.device.type == "cpu" and value.nbytes <= value.untyped_storage().nbytes()


def _checked_about(about: Any) -> RunInfo:
    _check_plain(about)
    _expect(about, "choices", dict)
    _expect(about, "overrides", list)
    _expect(about, "config", dict)
    _expect(about, "fingerprint", str)
    _expect(about, "val", dict)
    choices = about["choices"]
    for group, option in choices.items():
        if not GROUP.fullmatch(group) or not (
            option is None or isinstance(option, str) and CHOICE.fullmatch(option)
        ):
            raise UserError(f"its choices have {group}={option!r}, which is no option")
    for group in ("model", "data"):
        if not choices.get(group):
            raise UserError(f"its choices have no {group}")
    if not all(isinstance(text, str) for text in about["overrides"]):
        raise UserError("its overrides are not texts")
    for name, value in about["val"].items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"its val has {name}={value!r}, which is no number")
    choices = {"scheduler": "constant", **choices}  # earlier versions had no other
    overrides = [printable(text) for text in about["overrides"]]
    return RunInfo(choices, overrides, fingerprint=about["fingerprint"], val=about["val"])


def _checked_config(about: Plain, trusted: tuple[str, ...]) -> Plain:
    """``config``, ``repeats`` and ``settings``, which earlier versions did not write apart."""
    about = {**about, "config": renamed(about["config"])}
    if "repeats" not in about:
        config, repeats = saved_config.read_back(about["config"], False, trusted)
        return {"config": config, "repeats": repeats, "settings": settings.flat(about["config"])}
    _expect(about, "repeats", list)
    _expect(about, "settings", dict)
    if not all(isinstance(name, str) for name in about["repeats"]):
        raise UserError("its repeats are not texts")
    if any(isinstance(value, (dict, list, tuple)) for value in about["settings"].values()):
        raise UserError("its settings are not plain values")
    config, _ = saved_config.read_back(about["config"], True, trusted)
    return {"config": config, "repeats": about["repeats"], "settings": renamed(about["settings"])}


def _expect(about: Plain, key: str, kind: type) -> None:
    if not isinstance(about.get(key), kind):
        raise UserError(f"twotower has {'no' if key not in about else 'a wrong'} {key}")


def _check_plain(node: Any) -> None:
    """Dictionaries, lists, texts and numbers alone, of a size that a config can have.

    A pickle may hold a container in itself, or so often that a walk through it would never end.
    """
    if not isinstance(node, dict):
        raise UserError("twotower is no dictionary")
    left, level, depth = MOST, [node], 0
    while level:
        inner: list[Any] = []
        for value in level:
            if type(value) is dict:
                if not all(type(key) in (str, int, float, bool, type(None)) for key in value):
                    raise UserError("twotower has keys that are no texts")
                inner += value.values()
            elif type(value) is list or type(value) is tuple:
                inner += value
            elif type(value) not in (str, int, float, bool, type(None)):
                raise UserError(f"twotower holds a {type(value).__name__} among its plain values")
            if len(inner) > left:
                raise UserError("twotower holds more than a config can")
        left -= len(inner)
        depth += 1
        if depth > DEEPEST:
            raise UserError("twotower is nested too deeply")
        level = inner


def restore_config(info: RunInfo, config: Plain) -> Plain:
    """The checkpoint's config, with what the command in hand says of paths, trainer, logger and callbacks.

    Another number of processes may have another ``data.batch_size``, so that all together take as many positives as before.

    Args:
        info: the checkpoint's ``twotower``.
        config: of the command, resolved to plain values.

    Raises:
        UserError: if the command line changes what the checkpoint decides.
    """
    saved = info.config
    found = {root: config[root] for root in ABROAD if root in config}
    found |= {root: saved[root] for root in FIXED if root in saved}
    _bring_home(found, info, config["paths"])
    whole_batch = _whole_batch(saved)
    choices, told = HydraConfig.get().runtime.choices, set()
    for override in OverridesParser.create().parse_overrides(
        list(HydraConfig.get().overrides.task)
    ):
        key = override.key_or_group
        root = key.replace("/", ".").replace("@", ".").split(".")[0]
        value = select(config, key)
        if root not in FIXED:
            told.add(root if key in choices else key)
        if key in choices and root not in FIXED and root in config:
            continue
        if key in choices:
            if choices[key] != info.choices.get(key):
                raise UserError(
                    f"{override.input_line}: the checkpoint has {key}={info.choices.get(key)}; start a new run for another"
                )
        elif (
            key == "data.batch_size"
            and whole_batch is not None
            and _whole_batch(config) == whole_batch
        ):
            put(found, key, value)  # the same in other parts: it is per process
        elif root == "data" and (
            ADDRESS.fullmatch(key.split(".")[-1]) or key.split(".")[-1] in PLACES
        ):
            put(found, key, value)
        elif root in FIXED and select(saved, key) != value:
            raise UserError(
                f"{override.input_line}: the checkpoint has {select(saved, key)}; start a new run for another"
            )
    saved_config.take_up(found, saved, told)
    _check_callbacks(info.settings, found, told)
    new_batch = _whole_batch(found)
    if "data" in config and None not in (whole_batch, new_batch) and whole_batch != new_batch:
        num, size = settings.processes(found["trainer"]), found["data"]["batch_size"]
        raise UserError(
            f"the checkpoint's steps take {whole_batch} positives, {num} processes of data.batch_size={size} would take "
            f"{new_batch}: set data.batch_size={whole_batch}/{num}, or as many processes as before (trainer.devices, "
            "trainer.num_nodes)"
        )
    return found


def _check_callbacks(before: Plain, config: Plain, told: set[str]) -> None:
    """Refuse to go on with another setting of a callback, such as a name of files, which a checkpoint does not bring."""
    now = settings.flat({"callbacks": config.get("callbacks") or {}})
    for key, value in before.items():
        is_told = settings.is_within(key, told) or key.endswith("_target_")
        if key.startswith("callbacks.") and key in now and now[key] != value and not is_told:
            raise UserError(
                f"the checkpoint's run had {key}={value}, which a checkpoint does not bring: repeat it, "
                f"or give {key}={now[key]} for the change"
            )


def own_config(info: RunInfo, paths: Plain) -> Plain:
    """The checkpoint's config for use on this machine, without a command line.

    Args:
        info: the checkpoint's ``twotower``.
        paths: ``data_dir`` and ``cache_dir``.
    """
    found = {**info.config, "paths": paths}
    _bring_home(found, info, paths)
    return found


def _bring_home(config: Plain, info: RunInfo, paths: Plain) -> None:
    """Where data lie and come from is not the checkpoint's to say."""
    config["data"] = {**config["data"], **{key: paths[key] for key in PLACES}}
    config["data"]["reader"] = dict(config["data"]["reader"])
    saved_config.with_addresses(config, info.choices["data"])


def _whole_batch(config: Plain) -> int | None:
    """Positives of a training step of all processes; None if the number of processes depends on the machine."""
    size, num = select(config, "data.batch_size"), settings.processes(config.get("trainer") or {})
    return size * num if isinstance(size, int) and num is not None else None
