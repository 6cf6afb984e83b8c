"""The train command: trains, tests the best checkpoint and writes metrics.json."""

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities import rank_zero_only

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare.fingerprint import split_fingerprint
from twotower.errors import UserError, extra
from twotower.files import write_json
from twotower.run import announce, derive, ranks, results, settings
from twotower.run.about import new_run, resumed_run, under_way, warn_of_refusal, write_record
from twotower.run.build import Config, build, build_part, seed_everything
from twotower.run.checkpoint.checkpoints import read_checkpoint
from twotower.run.checkpoint.file import naming
from twotower.run.checkpoint.resume import Resume
from twotower.run.checkpoint.saved_config import Plain, put, select
from twotower.run.checks.checks import check_monitors
from twotower.run.references import oracle_metrics, popularity_metrics
from twotower.run.run_folder import RunFolder
from twotower.run.trainer import build_trainer
from twotower.run.wandb_names import flatten, variant
from twotower.training import torchrec
from twotower.training.callbacks import Throughput
from twotower.training.checkpoint_io import WholeCheckpointIO
from twotower.training.fused import lockstep
from twotower.training.loggers.wandb_logger import RunWandbLogger, closing_wandb
from twotower.training.progress import monitor_of
from twotower.training.pruning import Pruning
from twotower.training.run_info import RunInfo
from twotower.training.stopping import prepare_to_stop
from twotower.training.task import RetrievalTask
from twotower.training.threads import StepThreads


@closing_wandb()
def train(config: DictConfig) -> dict[str, float]:
    """Train, choose the best epoch by validation, test it once and write ``metrics.json``.

    Returns:
        Test metrics by name.
    """
    with ExitStack() as stack:
        started = time.perf_counter()
        ckpt_path = config.ckpt_path
        plain, info = new_run(config) if ckpt_path is None else resumed_run(config)
        folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
        _check_folder(folder, ckpt_path)
        if ckpt_path is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            write_record(folder.path, config, is_resumed=False)
            stack.enter_context(under_way(folder))
        overrides = HydraConfig.get().overrides.task
        seed_everything(plain["seed"])
        logger = _logger(plain, info)
        with naming(ckpt_path):
            callbacks = [*_callbacks(plain), StepThreads(), Resume(), *lockstep.callbacks()]
            has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
            # False without our bar: else Lightning adds its own
            own = {**plain["trainer"], "enable_progress_bar": has_bar}
            trainer = build_trainer(own, logger=logger, callbacks=callbacks)
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
            prepare_to_stop(trainer, folder.last, settings.repeated(overrides))
            unset = derive.unset(plain)
            data, task = build(plain, info, trainer)
            if plain["model"].get("sharding") == "torchrec":
                torchrec.check(trainer)
                torchrec.tables_of(task.make_optimizer())
        derived = {key: select(plain, key) for key in unset}
        check_monitors(plain["callbacks"], [f"val/{name}" for name in task.evaluation.names()])
        if trainer.is_global_zero:
            warn_of_refusal(info, config.trusted)
            for key, value in derived.items():
                put(config, key, value)
            if ckpt_path is not None or derived:  # accepted now
                write_record(folder.path, config, is_resumed=ckpt_path is not None)
            if ckpt_path is not None:
                stack.enter_context(under_way(folder))
            if derived and isinstance(logger, RunWandbLogger):
                logger.add_settings(derived)
            if not _is_in_sweep():
                announce.print_start(info, data, task, trainer, folder.path, derived)
            has_steps = not hasattr(task.model, "fit")
            if lockstep.is_first():
                announce.warn_of_data(data, has_steps, trainer.world_size)
        if hasattr(task.model, "fit"):
            _fit_in_closed_form(trainer, task, data, folder)
        else:
            trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
        current: Any = trainer.fit_loop.epoch_progress.current
        epochs = current.started
        chosen = read_checkpoint(_chosen(trainer, folder))
        task.load_state_dict(chosen["state_dict"])
        popularity = oracle = None
        if plain.get("test", True):
            trainer.test(task, data, verbose=False)
            popularity = popularity_metrics(plain, data, trainer)
            oracle = oracle_metrics(plain, data, trainer) if data.has_oracle else None
        if trainer.is_global_zero:
            record = {
                **_record(info, plain, data, trainer),
                "epochs": epochs,
                "val": chosen["twotower"].val,
                "test": task.results.get("test", {}),
                "popularity": popularity,
                "oracle": oracle,
                "diagnostics": task.results.get("diagnostics"),
                "wall_seconds": time.perf_counter() - started,
                **_of_search(plain, trainer),
            }
            _write_results(folder, record, task, data, trainer, logger)
        return task.results.get("test", {})


def _fit_in_closed_form(
    trainer: pl.Trainer, task: RetrievalTask, data: RetrievalDataModule, folder: RunFolder
) -> None:
    """Fit a model that needs no steps, and validate it.

    Raises:
        UserError: for data with weights, which such models do not read.
    """
    if "interactions/weight" in data.tables:
        raise UserError(
            "this model is fitted in closed form, which reads no weights: set "
            "data.reader.columns.weight=null, or train another model"
        )
    model: Any = task.model
    model.to(trainer.strategy.root_device).fit(data.train_interactions())
    trainer.validate(task, data, verbose=False)
    trainer.save_checkpoint(folder.best)


def _record(
    info: RunInfo, plain: Plain, data: RetrievalDataModule, trainer: pl.Trainer
) -> dict[str, Any]:
    """What ``metrics.json`` says of a run besides its metrics."""
    return {
        "status": "completed",
        "model": info.choices["model"],
        "data": info.choices["data"],
        "data_fingerprint": data.fingerprint,
        "split_fingerprint": split_fingerprint(data.meta, data.ids),
        "data_note": data.note,
        "interactions_per_user": len(data.tables["position/train"]) / data.meta["num_train_users"],
        "seed": plain["seed"],
        "overrides": info.overrides,
        "settings": settings.flat(plain, trainer.world_size, info.repeats),
        "categories": ranks.named_categories(data),
        "fused": lockstep.num_runs(),
        "train_examples_per_second": _examples_per_second(trainer),
        "peak_memory_bytes": results.peak_memory_bytes(),
        "versions": results.versions(),
    }


def _of_search(plain: Plain, trainer: pl.Trainer) -> dict[str, Any]:
    """What a trial of a search adds to its record, and a run that confirms one."""
    found: dict[str, Any] = {}
    if plain.get("budget") is not None:
        found["budget"] = plain["budget"]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Pruning):
            found["curve"] = callback.curve
            found["status"] = "pruned" if callback.pruned else "completed"
    return found


def _write_results(
    folder: RunFolder,
    record: dict[str, Any],
    task: RetrievalTask,
    data: RetrievalDataModule,
    trainer: pl.Trainer,
    logger: Any,
) -> None:
    """Write ranks and ``metrics.json``, then the table, plots and W&B's extras.

    A run is complete with ``metrics.json``: what fails after it is a warning.
    """
    if record["test"]:
        with extra("the ranks of the test are"):
            ranks.write(folder.ranks, task, data)
    write_json(folder.record, record)
    if not _is_in_sweep():  # a sweep has a table of all its runs
        with extra("the table of results is"):
            results.print_table(record, folder.path)
        announce.warn_of_result(record, monitor_of(trainer))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "draw_plots"):
            with extra("the plots of the diagnostics are"):
                callback.draw_plots()
    with extra("the plot of the learning curve is"):
        from twotower.run import learning  # matplotlib takes time to import

        metric = monitor_of(trainer).removeprefix("val/") or "ndcg@10"
        learning.draw(folder, record, metric)
    if isinstance(logger, RunWandbLogger):
        chosen_epoch = {f"val/{name}": value for name, value in record["val"].items()}
        logger.log_results(*results.as_rows(record), chosen_epoch, folder.plots)


def _is_in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _check_folder(folder: RunFolder, ckpt_path: str | None) -> None:
    """Refuse another folder for a resumed run, which needs the best epoch and the log of its own.

    Raises:
        UserError: naming both folders.
    """
    if ckpt_path is None:
        return
    own = RunFolder.of(ckpt_path).path
    if folder.path.resolve() != own.resolve():
        raise UserError(
            f"ckpt_path={ckpt_path} continues in its run folder, {own}, and not in {folder.path}: "
            "leave out hydra.run.dir (a copy of that folder can be resumed separately)"
        )


def _chosen(trainer: pl.Trainer, folder: RunFolder) -> Path:
    """The checkpoint to test: the best by validation, or the last if there was no validation.

    Raises:
        UserError: if there is none.
    """
    # callbacks.best may write into another folder
    kept = getattr(trainer.checkpoint_callback, "best_model_path", "")
    for path in (Path(kept), folder.best, folder.last):
        if path.is_file():
            return path
    raise UserError(
        f"no checkpoint was written to {folder.best.parent}, so there are no weights to test: look "
        "at callbacks.best and callbacks.last"
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
        names.remove("progress")  # Lightning refuses both
    return [build_part(config, f"callbacks.{name}") for name in names]


def _examples_per_second(trainer: pl.Trainer) -> float | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    rates = [each.examples_per_second() for each in callbacks if isinstance(each, Throughput)]
    return rates[0] if rates and rates[0] is not None and math.isfinite(rates[0]) else None
