"""The only module that sees a config: builds the parts, trains, evaluates."""

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from twotower import ranks, results, saved_config, settings
from twotower.about import new_run, resumed_run, warn_of_strangers
from twotower.callbacks import Throughput
from twotower.checkpoint_io import WholeCheckpointIO
from twotower.checkpoints import load_checkpoint, restore_config
from twotower.cli import check_roots, check_types
from twotower.construct import construct
from twotower.data import store
from twotower.metrics.base import RankMetric
from twotower.models.oracle import Oracle
from twotower.restoring import CheckedConnector, naming
from twotower.resume import Resume
from twotower.saved_config import FIXED
from twotower.sharding import built_for, shard_of
from twotower.task import RetrievalTask
from twotower.types import UserError, check_number
from twotower.wandb_logger import RunWandbLogger, closing_wandb

Config = DictConfig | dict[str, Any]  # composed by Hydra, or already plain values


@closing_wandb()
def train(config: DictConfig) -> dict[str, float]:
    """Train, choose the best epoch by validation, test it once; ``metrics.json`` is the last act.

    Returns:
        Test metrics by name.
    """
    started = time.perf_counter()
    ckpt_path = config.ckpt_path
    plain, about = new_run(config) if ckpt_path is None else resumed_run(config)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    with naming(ckpt_path):
        seed_everything(plain["seed"])
    logger = _logger(plain, about)
    with naming(ckpt_path):
        trainer = build_part(plain, "trainer", logger=logger, callbacks=[*_callbacks(plain), Resume()])
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
        data, task = build(plain, about, trainer)
    _check_monitors(plain, task)
    if trainer.is_global_zero:
        warn_of_strangers(about)
    best = run_dir / "checkpoints" / "best.ckpt"
    if hasattr(task.model, "fit"):
        task.model.to(trainer.strategy.root_device).fit(data.train_interactions())  # closed form: there is nothing to iterate
        trainer.validate(task, data, verbose=False)
        trainer.save_checkpoint(best)
    else:
        if trainer.max_epochs == 0 or trainer.max_steps == 0:
            raise UserError("trainer.max_epochs and trainer.max_steps must not be 0: there would be nothing to test")
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    epochs = trainer.fit_loop.epoch_progress.current.started
    chosen = load_checkpoint(best if best.exists() else best.with_name("last.ckpt"), rebuilds=False)
    task.load_state_dict(chosen["state_dict"])
    trainer.test(task, data, verbose=False)
    test = task.results["test"]
    oracle = _oracle_metrics(plain, data, trainer) if data.has_oracle else None
    if trainer.is_global_zero:
        record = {
            "status": "completed",
            "model": about["choices"]["model"],
            "data": about["choices"]["data"],
            "data_fingerprint": data.fingerprint,
            "split_fingerprint": store.split_fingerprint(data.meta, data.ids),
            "data_note": data.note,
            "seed": plain["seed"],
            "overrides": about["overrides"],
            "settings": settings.flat(plain, trainer.world_size, about["repeats"]),
            "epochs": epochs,
            "val": chosen["twotower"]["val"],
            "test": test,
            "oracle": oracle,
            "diagnostics": task.results.get("diagnostics"),
            "categories": ranks.named_categories(data),
            "train_examples_per_second": _examples_per_second(trainer),
            "wall_seconds": time.perf_counter() - started,
            "peak_memory_bytes": results.peak_memory_bytes(),
            "versions": results.versions(),
        }
        if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweep has a table of all its runs
            results.print_table(record, run_dir)
        ranks.write(run_dir, task, data)
        if isinstance(logger, RunWandbLogger):
            chosen_epoch = {f"val/{name}": value for name, value in record["val"].items()}
            logger.log_results(*results.as_rows(record), chosen_epoch, run_dir / "plots")
        results.write_json(run_dir / "metrics.json", record)
    return test


def evaluate(config: DictConfig) -> dict[str, float]:
    """Rebuild a checkpoint's run from the checkpoint alone and repeat its test.

    Raises:
        UserError: if the data on disk are not those of the checkpoint.
    """
    checkpoint = load_checkpoint(config.ckpt_path)
    about = checkpoint["twotower"]
    saved = restore_config(about, saved_config.resolved(config)[0])
    with naming(config.ckpt_path):
        trainer = build_part(saved, "trainer", logger=False, callbacks=[], enable_checkpointing=False)
    data, task = rebuild(saved, checkpoint, trainer)
    if config.clicks is not None:
        check_number("clicks", config.clicks, 0)
        data.new_user_clicks = config.clicks
    if config.shown is not None:
        check_number("shown", config.shown, 0)
        data.shown_clicks = config.shown
    run = trainer.validate if config.split == "val" else trainer.test
    run(task, data, verbose=False)
    values = task.results[config.split]
    record = {**about["choices"], "data_note": data.note, "seed": saved["seed"], config.split: values}
    if trainer.is_global_zero:
        results.print_table(record, Path(config.ckpt_path))
        if config.output:
            results.write_json(Path(config.output), record)
        if config.split == "test" and config.clicks is None and config.shown is None:
            ranks.complete(Path(config.ckpt_path), about, task, data)
    return values


def prepare(config: DictConfig) -> dict[str, Any]:
    """Prepare the data that training would use, and describe them on a card."""
    from twotower.data.card.describe import describe  # plots take a second to import, and only this needs them

    _check_roots(config, "force", "output")
    return describe(build_part(config, "data"), HydraConfig.get().runtime.choices["data"], config.force, config.output)


def build(config: Config, about: dict[str, Any], trainer: pl.Trainer | None = None) -> tuple[Any, RetrievalTask]:
    """Data module and task of a config.

    Args:
        config: as ``train.yaml`` composes it.
        about: what the task's checkpoints will carry; schema and fingerprint are added.
        trainer: whose processes share the tables of ``model.sharding=row``; None: this process has them all.

    Raises:
        UserError: for settings that do not fit their part, one another, or the data that ``about`` remembers.
    """
    _check_roots(config)
    for root in ("negatives", "model", "loss", "optimizer", "metric"):  # typos show before the data are prepared
        check_types(root, _node(config, root))
    data = build_part(config, "data")
    data.negatives = build_part(config, "negatives")
    data.setup()
    expected = about.get("fingerprint", data.fingerprint)
    if expected != data.fingerprint:
        raise UserError(
            f"the checkpoint was trained on other data (fingerprint {expected}, here {data.fingerprint}): set paths.data_dir to "
            "the files that it was trained on"
        )
    about |= {"schema": data.schema.plain(), "fingerprint": data.fingerprint}
    with built_for(*(0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)):
        model = build_part(config, "model", schema=data.schema)
    if trainer is not None and any(shard_of(parameter) for parameter in model.parameters()):
        _check_sharding(trainer)
    loss = build_part(config, "loss", schema=data.schema)
    optimizer = build_part(config, "optimizer")
    task = RetrievalTask(model, loss, optimizer, _metrics(config, data), data.group_names, about)
    if trainer is not None and trainer.precision == "64-true":
        task.double()  # Lightning does it too, but after it has put a checkpoint's weights in place
    return data, task


def rebuild(config: Config, checkpoint: dict[str, Any], trainer: pl.Trainer | None = None) -> tuple[Any, RetrievalTask]:
    """Data module and task of a checkpoint, its weights in place.

    Args:
        config: the checkpoint's, see :func:`twotower.checkpoints.restore_config`.
        checkpoint: see :func:`twotower.checkpoints.load_checkpoint`.
        trainer: see :func:`build`.

    Raises:
        UserError: if the data on disk are not those of the checkpoint, or its weights not the model's.
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
    """The node at ``path`` as plain values; what is plain already is never interpolated."""
    if not isinstance(config, DictConfig):
        return saved_config.select(config, path)
    node = OmegaConf.select(config, path)
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    Raises:
        UserError: if it is no whole number that they take.
    """
    check_number("seed", seed, 0, 2**32 - 1)
    pl.seed_everything(seed, verbose=False)


def _check_roots(config: Config, *more: str) -> None:
    """A typo after a plus sign, ``+sed=1``, would pass unseen at the root; and a dry run never gets here."""
    known = {*FIXED, "paths", "trainer", "callbacks", "logger", "ckpt_path", "dry", *more}
    check_roots(config, known)
    if config.get("dry"):
        raise UserError("dry=true is for src/train.py alone, with hydra/sweeper=resumable")


def _check_sharding(trainer: pl.Trainer) -> None:
    strategy = trainer.strategy
    if type(strategy) is not DDPStrategy or isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise UserError("model.sharding=row needs processes that build their share by themselves: set trainer.strategy=ddp")
    if str(trainer.precision).startswith("16"):
        raise UserError(
            "trainer.precision=16-mixed would skip steps in one process alone: use bf16-mixed, or set model.sharding=none"
        )
    if trainer.gradient_clip_val is not None:
        raise UserError(
            "trainer.gradient_clip_val would clip each process's rows by another norm: leave it out, or set model.sharding=none"
        )


def _metrics(config: Config, data: Any) -> list[RankMetric]:
    names = [name for name, node in config["metric"].items() if node]
    return [build_part(config, f"metric.{name}", num_groups=len(data.group_names)) for name in names]


def _check_monitors(config: Config, task: RetrievalTask) -> None:
    """What a callback follows must be measured: Lightning would say so after a whole epoch."""
    names = task.metric_names()
    for name, callback in config["callbacks"].items():
        monitor = str(callback.get("monitor")) if callback else ""
        if monitor.startswith("val/") and monitor.removeprefix("val/") not in names:
            overall = ", ".join(f"val/{name}" for name in names if "/" not in name)
            raise UserError(f"callbacks.{name}.monitor={monitor} is not measured: choose from {overall}, or add to metric.*.k")


def _logger(config: dict[str, Any], about: dict[str, Any]) -> Any:
    logger = build_part(config, "logger") if config["logger"] else False
    if isinstance(logger, RunWandbLogger):
        logger.begin(about["choices"], about["overrides"], config, resumed=config["ckpt_path"] is not None)
    return logger


def _callbacks(config: Config) -> list[pl.Callback]:
    return [build_part(config, f"callbacks.{name}") for name, node in config["callbacks"].items() if node]


def _oracle_metrics(config: Config, data: Any, trainer: pl.Trainer) -> dict[str, float]:
    """Test metrics of the best possible ranking, which synthetic data know; logged as ``oracle/…``.

    Nobody in them takes an item twice, so the best ranking has seen items last, whatever
    ``data.mask_seen`` is: ranked by the planted odds alone, they would stand before the targets.
    """
    mask_seen, data.mask_seen = data.mask_seen, True
    task = RetrievalTask(Oracle(), None, None, _metrics(config, data), data.group_names, {}, test_name="oracle")
    trainer.test(task, data, verbose=False)
    data.mask_seen = mask_seen
    return task.results["oracle"]


def _examples_per_second(trainer: pl.Trainer) -> float | None:
    rates = [callback.examples_per_second() for callback in trainer.callbacks if isinstance(callback, Throughput)]  # type: ignore[attr-defined]
    return rates[0] if rates and rates[0] is not None and math.isfinite(rates[0]) else None
