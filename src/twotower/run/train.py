"""The train command: builds the parts of a run, trains, tests the best checkpoint, writes metrics.json."""

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare import store
from twotower.errors import UserError, extra
from twotower.files import write_json
from twotower.models.oracle import Oracle
from twotower.run import ranks, results, settings
from twotower.run.about import new_run, resumed_run, warn_of_strangers, write_record
from twotower.run.build import Config, build, build_metrics, build_part, seed_everything
from twotower.run.checkpoint.checkpoints import read_checkpoint
from twotower.run.checkpoint.file import naming
from twotower.run.checkpoint.resume import Resume
from twotower.run.checkpoint.saved_config import Plain
from twotower.run.checks.checks import check_monitors
from twotower.run.run_folder import RunFolder
from twotower.run.wandb_names import flatten, variant
from twotower.training.callbacks import Throughput
from twotower.training.checkpoint_io import WholeCheckpointIO
from twotower.training.loggers.wandb_logger import RunWandbLogger, closing_wandb
from twotower.training.stopping import prepare_to_stop
from twotower.training.task import RetrievalTask
from twotower.types import RunInfo


@closing_wandb()
def train(config: DictConfig) -> dict[str, float]:
    """Train, choose the best epoch by validation, test it once; then write ``metrics.json``, see :func:`_leave`.

    Returns:
        Test metrics by name.
    """
    started = time.perf_counter()
    ckpt_path = config.ckpt_path
    plain, info = new_run(config) if ckpt_path is None else resumed_run(config)
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    _check_folder(folder, ckpt_path)
    if ckpt_path is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_record(folder.path, config, is_resumed=False)
    with naming(ckpt_path):
        seed_everything(plain["seed"])
    logger = _logger(plain, info)
    with naming(ckpt_path):
        trainer = build_part(
            plain, "trainer", logger=logger, callbacks=[*_callbacks(plain), Resume()]
        )
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
        again = [
            text
            for text in HydraConfig.get().overrides.task
            if settings.key_of(text) in settings.LAUNCH
        ]
        prepare_to_stop(trainer, folder.last, again)
        data, task = build(plain, info, trainer)
    _check_with_data(plain, data, task)
    if trainer.is_global_zero:
        warn_of_strangers(info, config.trusted)
        if ckpt_path is not None:  # accepted now
            write_record(folder.path, config, is_resumed=True)
    if hasattr(task.model, "fit"):
        model: Any = task.model
        model.to(trainer.strategy.root_device).fit(
            data.train_interactions()
        )  # closed form: there is nothing to iterate
        trainer.validate(task, data, verbose=False)
        trainer.save_checkpoint(folder.best)
    else:
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    epochs = trainer.fit_loop.epoch_progress.current.started
    chosen = read_checkpoint(_chosen(trainer, folder))
    task.load_state_dict(chosen["state_dict"])
    trainer.test(task, data, verbose=False)
    test = task.results["test"]
    oracle = _oracle_metrics(plain, data, trainer) if data.has_oracle else None
    if trainer.is_global_zero:
        record = {
            "status": "completed",
            "model": info.choices["model"],
            "data": info.choices["data"],
            "data_fingerprint": data.fingerprint,
            "split_fingerprint": store.split_fingerprint(data.meta, data.ids),
            "data_note": data.note,
            "seed": plain["seed"],
            "overrides": info.overrides,
            "settings": settings.flat(plain, trainer.world_size, info.repeats),
            "epochs": epochs,
            "val": chosen["twotower"].val,
            "test": test,
            "oracle": oracle,
            "diagnostics": task.results.get("diagnostics"),
            "categories": ranks.named_categories(data),
            "train_examples_per_second": _examples_per_second(trainer),
            "wall_seconds": time.perf_counter() - started,
            "peak_memory_bytes": results.peak_memory_bytes(),
            "versions": results.versions(),
        }
        _leave(folder, record, task, data, trainer, logger)
    return test


def _leave(
    folder: RunFolder,
    record: dict[str, Any],
    task: RetrievalTask,
    data: RetrievalDataModule,
    trainer: pl.Trainer,
    logger: Any,
) -> None:
    """Write ranks and ``metrics.json``, which says that all figures are known, and only then what a run can do without."""
    with extra("the ranks of the test are"):  # src/evaluate.py adds them
        ranks.write(folder, task, data)
    write_json(folder.record, record)
    if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweep has a table of all its runs
        with extra("the table of results is"):
            results.print_table(record, folder.path)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "draw_plots"):
            with extra("the plots of the diagnostics are"):
                callback.draw_plots()
    if isinstance(logger, RunWandbLogger):
        chosen_epoch = {f"val/{name}": value for name, value in record["val"].items()}
        logger.log_results(*results.as_rows(record), chosen_epoch, folder.plots)


def _check_folder(folder: RunFolder, ckpt_path: str | None) -> None:
    """A resumed run needs what lies in its folder: the best epoch so far, and the log.

    Raises:
        UserError: if it is to go on in another one.
    """
    if ckpt_path is None:
        return
    own = RunFolder.of(ckpt_path).path
    if folder.path.resolve() != own.resolve():
        raise UserError(
            f"ckpt_path={ckpt_path} goes on in its run folder, {own}, and not in {folder.path}: leave out "
            "hydra.run.dir (a copy of that folder goes on by itself)"
        )


def _check_with_data(config: Config, data: RetrievalDataModule, task: RetrievalTask) -> None:
    """What only the data can tell, before hours of training: the groups that are measured, and the number of batches.

    Raises:
        UserError: naming the setting.
    """
    check_monitors(config["callbacks"], [f"val/{name}" for name in task.evaluation.names()])
    for part, loader in (
        ("train", data.train_dataloader),
        ("val", data.val_dataloader),
        ("test", data.test_dataloader),
    ):
        share, num = config["trainer"].get(f"limit_{part}_batches"), len(loader())
        if isinstance(share, float) and num * share < 1:
            raise UserError(
                f"trainer.limit_{part}_batches={share} of {num} batches is none: give {1 / max(num, 1):.2g} or more"
            )


def _chosen(trainer: pl.Trainer, folder: RunFolder) -> Path:
    """The checkpoint to test: the best by validation, the last where no validation was.

    Raises:
        UserError: if there is none.
    """
    kept = getattr(
        trainer.checkpoint_callback, "best_model_path", ""
    )  # callbacks.best may write it elsewhere
    for path in (Path(kept), folder.best, folder.last):
        if path.is_file():
            return path
    raise UserError(
        f"no checkpoint was written to {folder.best.parent}, so there are no weights to test: look at callbacks.best and last"
    )


def _logger(config: Plain, info: RunInfo) -> Any:
    logger = build_part(config, "logger") if config.get("logger") else False
    if isinstance(logger, RunWandbLogger):
        choices = info.choices
        group = variant(choices, info.overrides)
        tags = [choices["model"], choices["data"]]
        logger.begin(group, tags, flatten(choices, config), resumed=config["ckpt_path"] is not None)
    return logger


def _callbacks(config: Config) -> list[pl.Callback]:
    names = [name for name, node in config["callbacks"].items() if node]
    if config["trainer"].get("enable_progress_bar") is False and "progress" in names:
        names.remove("progress")  # or Lightning refuses it
    return [build_part(config, f"callbacks.{name}") for name in names]


def _oracle_metrics(
    config: Config, data: RetrievalDataModule, trainer: pl.Trainer
) -> dict[str, float]:
    """Test metrics of the best possible ranking, which synthetic data know; logged as ``oracle/…``.

    Nobody in them takes an item twice, so the best ranking has seen items last, whatever
    ``data.mask_seen`` is: ranked by the planted odds alone, they would stand before the targets.
    """
    task = RetrievalTask(
        Oracle(),
        None,
        None,
        build_metrics(config, data),
        data.group_names,
        None,
        test_name="oracle",
    )
    with data.hiding_all_seen():
        trainer.test(task, data, verbose=False)
    return task.results["oracle"]


def _examples_per_second(trainer: pl.Trainer) -> float | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    rates = [each.examples_per_second() for each in callbacks if isinstance(each, Throughput)]
    return rates[0] if rates and rates[0] is not None and math.isfinite(rates[0]) else None
