"""The evaluate command: repeats the test of a checkpoint."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from twotower.errors import UserError, extra
from twotower.files import read_json, write_json
from twotower.run import ranks, results
from twotower.run.build import rebuild
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.file import naming
from twotower.run.run_folder import RunFolder
from twotower.run.trainer import build_trainer, with_all_processes
from twotower.training.progress import ProgressBar
from twotower.training.run_info import RunInfo
from twotower.training.stopping import prepare_to_stop


def evaluate(config: DictConfig) -> dict[str, float]:
    """Rebuild a checkpoint's run from the checkpoint alone and repeat its test.

    Several processes share the users; the first one prints and writes.

    Raises:
        UserError: if the data on disk are not those of the checkpoint, and for ``ranks`` of
            another part than the test.
    """
    if config.ranks and config.split != "test":
        raise UserError(f"ranks={config.ranks} is of the test: leave out split={config.split}")
    for name in ("output", "ranks"):
        _check_target(name, config[name])
    checkpoint = load_checkpoint(config.ckpt_path, trusted=config.trusted)
    info: RunInfo = checkpoint["twotower"]
    saved = restore_config(info, saved_config.resolved(config)[0])
    has_bar = saved["trainer"].get("enable_progress_bar") is not False
    fixed: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    with naming(config.ckpt_path):
        bar = [ProgressBar(20)] if has_bar else []
        trainer = build_trainer(with_all_processes(saved["trainer"]), callbacks=bar, **fixed)
    prepare_to_stop(trainer)
    data, task = rebuild(saved, checkpoint, trainer)
    data.evaluate_after(config.clicks, config.shown)
    task.keeps_ranks = bool(config.ranks)
    run = trainer.validate if config.split == "val" else trainer.test
    run(task, data, verbose=False)
    values = task.results[config.split]
    record = {**info.choices, "data_note": data.note, "seed": saved["seed"], config.split: values}
    if trainer.is_global_zero:
        path = Path(config.ckpt_path)
        results.print_table({**_measured_by_run(config), **record}, path)
        if config.output:
            write_json(Path(config.output), record)
        if config.ranks:
            ranks.write(Path(config.ranks), task, data)
    return values


def _check_target(name: str, target: str | None) -> None:
    """Make the folder of a file before anything is computed for it.

    Raises:
        UserError: for a folder.
    """
    if target is None:
        return
    if Path(target).is_dir():
        raise UserError(f"{name}={target} is a folder: name a file")
    Path(target).absolute().parent.mkdir(parents=True, exist_ok=True)


def _measured_by_run(config: DictConfig) -> dict[str, Any]:
    """What the run's own record has beside the test: popularity, the oracle, and validation.

    Validation is of the best epoch, and all of them are of the test of all users.
    """
    path = Path(config.ckpt_path)
    folder = RunFolder.of(path)
    is_other = config.split != "test" or config.clicks is not None or config.shown is not None
    if is_other or path.absolute().parent != folder.best.parent or not folder.record.is_file():
        return {}
    names = ["popularity", "oracle", *(["val"] if path.name == folder.best.name else [])]
    with extra("the run's own columns are"):
        record = read_json(folder.record)
        return {name: dict(record[name] or {}) for name in names if name in record}
    return {}
