"""Checkpoints: read without unpickling code, and the config that rebuilds their run."""

from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from twotower import settings
from twotower.types import UserError

FIXED = ("data", "negatives", "model", "loss", "optimizer", "metric", "seed")  # what a checkpoint decides
TRUSTED = ("twotower.", "torch.optim.", "pytorch_lightning.")  # what a checkpoint's config may build


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours without unpickling code; its tensors stay in the file, which processes of one machine share.

    Raises:
        UserError: if there is none, or it is none of ours.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"ckpt_path={path}: there is no such file") from None
    except Exception as error:
        raise UserError(f"ckpt_path={path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict) or "twotower" not in checkpoint:
        raise UserError(f"ckpt_path={path} was not written by this project")
    return checkpoint


def trusted_config(about: dict[str, Any]) -> DictConfig:
    """The config that a checkpoint carries, unresolved.

    Args:
        about: the checkpoint's ``twotower``.

    Raises:
        UserError: if it would build what is none of ours.
    """
    _check_targets(about["config"])
    return OmegaConf.create(about["config"])


def restore_config(about: dict[str, Any], config: DictConfig) -> DictConfig:
    """The checkpoint's config, with what the command line says of paths, trainer, logger and callbacks.

    Another number of processes may have another ``data.batch_size``, so that all together take as many positives as before.

    Raises:
        UserError: if the command line changes what the checkpoint decides.
    """
    saved = trusted_config(about)
    whole_batch = _whole_batch(saved)
    choices = HydraConfig.get().runtime.choices
    for override in OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task)):
        key = override.key_or_group
        root = key.replace("/", ".").replace("@", ".").split(".")[0]
        if key in choices and root not in FIXED and root in config:
            OmegaConf.update(saved, root, config[root], merge=False, force_add=True)
        elif key in choices:
            if choices[key] != about["choices"].get(key):
                raise UserError(
                    f"{override.input_line}: the checkpoint has {key}={about['choices'].get(key)}; start a new run for another"
                )
        elif key == "data.batch_size" and whole_batch is not None and _whole_batch(config) == whole_batch:
            OmegaConf.update(saved, key, config.data.batch_size)  # the same in other parts: it is per process
        elif root in FIXED:
            if OmegaConf.select(saved, key) != OmegaConf.select(config, key):
                raise UserError(
                    f"{override.input_line}: the checkpoint has {OmegaConf.select(saved, key)}; start a new run for another"
                )
        elif root in saved:
            OmegaConf.update(saved, key, OmegaConf.select(config, key), force_add=True)
    saved.ckpt_path = config.ckpt_path
    new_batch = _whole_batch(saved)
    if "data" in config and None not in (whole_batch, new_batch) and whole_batch != new_batch:
        num, size = settings.processes(saved.trainer), saved.data.batch_size
        raise UserError(
            f"the checkpoint's steps take {whole_batch} positives, {num} processes of data.batch_size={size} would take "
            f"{new_batch}: set data.batch_size={whole_batch}/{num}, or as many processes as before"
        )
    return saved


def _whole_batch(config: DictConfig) -> int | None:
    """Positives of a training step of all processes; None if the number of processes depends on the machine."""
    size, num = OmegaConf.select(config, "data.batch_size"), settings.processes(config.trainer)
    return size * num if isinstance(size, int) and num is not None else None


def _check_targets(node: Any) -> None:
    """A checkpoint may come from anywhere: what its config builds must be classes of ours, optimizers or Lightning's parts.

    Raises:
        UserError: for any other target.
    """
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    if target is not None:
        try:
            trusted = str(target).startswith(TRUSTED) and get_class(target).__module__.startswith(TRUSTED)
        except Exception:  # Hydra's word for what is not there, or no class
            trusted = False
        if not trusted:
            raise UserError(f"the checkpoint's config would build {target}, which is no part of this project: refused")
    for value in node.values():
        _check_targets(value)
