"""Build the parts of a run from its config: data, model, loss, optimizer, metrics, trainer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_object
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from twotower.data.datamodule import RetrievalDataModule
from twotower.distributed.sharding import built_for, shard_of
from twotower.errors import UserError, check_number
from twotower.metrics.base import RankMetric
from twotower.metrics.items import ItemMetric
from twotower.run import settings
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.file import naming
from twotower.run.checkpoint.restoring import CheckedConnector
from twotower.run.checks.checks import check_types
from twotower.run.checks.own_code import CURE, is_installed
from twotower.run.derive import derive
from twotower.training.run_info import RunInfo
from twotower.training.task import RetrievalTask
from twotower.wording import one_line

Config = DictConfig | dict[str, Any]  # composed by Hydra, or already plain values


def build(
    config: Config,
    info: RunInfo | None = None,
    trainer: pl.Trainer | None = None,
) -> tuple[RetrievalDataModule, RetrievalTask]:
    """Data module and task of a config.

    Args:
        config: as ``train.yaml`` composes it. Settings that are null because the size of the data
            decides them get their values, in place.
        info: what the task's checkpoints write about the run; these values, and schema and
            fingerprint of the data are added. None: the task writes no checkpoints.
        trainer: its processes share the tables of ``model.sharding``. None: this process has
            whole tables.

    Raises:
        UserError: for settings that do not fit, or other data than those of ``info``.
    """
    data: RetrievalDataModule = build_part(
        config, "data", negatives=build_part(config, "negatives")
    )
    data.setup()
    if info and info.fingerprint not in ("", data.fingerprint):
        raise UserError(
            f"the checkpoint was trained on other data (fingerprint {info.fingerprint}, here "
            f"{data.fingerprint}): set paths.data_dir to the files that it was trained on"
        )
    if derive(config, data, trainer) and info:
        plain: Any = config  # as it always is for a run that writes checkpoints
        found = settings.flat(plain, repeats=info.repeats)
        info = info._replace(config=saved_config.kept(plain), settings=found)
    info = info and info._replace(schema=data.schema.plain(), fingerprint=data.fingerprint)
    with built_for(*(0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)):
        model = build_part(config, "model", schema=data.schema)
    if trainer is not None and any(shard_of(parameter) for parameter in model.parameters()):
        _check_sharding(trainer)
    loss = build_part(config, "loss", schema=data.schema)
    optimizer = build_part(config, "optimizer")
    scheduler = build_part(config, "scheduler")
    metrics = build_metrics(config, data)
    task = RetrievalTask(
        model, loss, optimizer, metrics, data.group_names, info, scheduler=scheduler
    )
    if trainer is not None and trainer.precision == "64-true":
        task.double()  # Lightning does it too, but after it has put a checkpoint's weights in place
    return data, task


def rebuild(
    config: Config, checkpoint: dict[str, Any], trainer: pl.Trainer | None = None
) -> tuple[RetrievalDataModule, RetrievalTask]:
    """Data module and task of a checkpoint, its weights in place.

    Args:
        config: the checkpoint's, see :func:`twotower.run.checkpoint.checkpoints.restore_config`.
        checkpoint: see :func:`twotower.run.checkpoint.checkpoints.load_checkpoint`.
        trainer: see :func:`build`.

    Raises:
        UserError: if the data on disk are not the checkpoint's, or its weights do not fit.
    """
    with naming(checkpoint["path"]):
        seed_everything(config["seed"])
        data, task = build(config, checkpoint["twotower"], trainer)
        task.load_state_dict(checkpoint["state_dict"])
    return data, task


def build_part(config: Config, path: str, **extra: Any) -> Any:
    """Build the node at ``path`` with its settings checked."""
    node = _node(config, path)
    check_types(path, node)
    part = construct(path, node, **extra)
    if isinstance(part, pl.Trainer):
        part._checkpoint_connector = CheckedConnector(part)
    return part


def _node(config: Config, path: str) -> Any:
    """The node at ``path`` as plain values. Plain values are never interpolated."""
    if not isinstance(config, DictConfig):
        return saved_config.select(config, path)
    node = OmegaConf.select(config, path)
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    Raises:
        UserError: if it is not a whole number between 0 and 2**32 - 1.
    """
    check_number("seed", seed, 0, 2**32 - 1)
    pl.seed_everything(seed, verbose=False)


def _check_sharding(trainer: pl.Trainer) -> None:
    strategy = trainer.strategy
    if type(strategy) is not DDPStrategy or isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            "model.sharding needs processes that build their own part of the model: set "
            "trainer.strategy=ddp"
        )
    if str(trainer.precision).startswith("16"):
        raise UserError(
            "trainer.precision=16-mixed would skip steps in single processes: use bf16-mixed, or "
            "set model.sharding=none"
        )
    if trainer.gradient_clip_val is not None:
        raise UserError(
            "trainer.gradient_clip_val would clip each process's rows by another norm: leave it "
            "out, or set model.sharding=none"
        )


def build_metrics(config: Config, data: RetrievalDataModule) -> list[RankMetric]:
    """The metrics that are not null; each counts for every group of the data."""
    num_groups = len(data.group_names)
    names = [name for name, node in config["metric"].items() if node]
    metrics = [build_part(config, f"metric.{name}", num_groups=num_groups) for name in names]
    readers = [metric for metric in metrics if isinstance(metric, ItemMetric)]
    if readers:
        item = data.train_interactions().item - 1  # corpus indices
        item_count = torch.bincount(item, minlength=data.schema.num_items)
        for metric in readers:
            metric.use_items(item_count)
    return metrics


def construct(place: str, node: Any, **extra: Any) -> Any:
    """Call what ``_target_`` names with the node's other values; nested nodes are built first.

    Texts are passed on unchanged: ``hydra.utils.instantiate`` would evaluate ``${…}`` in them.

    Args:
        place: dotted name of the node in the config, for messages.
        node: plain containers. ``_partial_: true`` gives a function that still takes arguments.
        extra: more arguments of the outermost call.

    Raises:
        UserError: for a target that cannot be imported, or that refuses its arguments.
    """
    if isinstance(node, list):
        return [construct(f"{place}[{index}]", value) for index, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    settings = {
        key: construct(f"{place}.{key}", value)
        for key, value in node.items()
        if key not in ("_target_", "_partial_")
    }
    if "_target_" not in node:
        return settings
    if unknown := [key for key in settings if not isinstance(key, str) or key.startswith("_")]:
        raise UserError(
            f"{place}.{unknown[0]} cannot be set: only _target_ and _partial_ begin with _"
        )
    target = node["_target_"]
    make = _callable(place, target)
    if node.get("_partial_"):
        return partial(make, **settings, **extra)
    try:
        return make(**settings, **extra)
    except (UserError, OSError, MemoryError):
        raise
    except MisconfigurationException as error:  # Lightning's, such as of an absent accelerator
        message = f"{place}.* does not fit this machine or itself: {one_line(error)}"
        raise UserError(message) from error
    except Exception as error:
        if "memory" in str(error):  # torch's RuntimeError for a table that is too large
            raise
        raise UserError(f"{place} does not fit {target}: {one_line(error)}") from error


def _callable(place: str, target: Any) -> Callable[..., Any]:
    try:
        found = get_object(target)
    except Exception as error:  # of the import of any module
        reason = one_line(error)
        cure = "" if is_installed(str(target)) else f": {CURE}"
        raise UserError(f"{place}._target_={target} cannot be imported: {reason}{cure}") from error
    if not callable(found):
        raise UserError(f"{place}._target_={target} cannot be called")
    make: Callable[..., Any] = found
    return make
