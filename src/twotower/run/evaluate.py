"""The evaluate command: repeats the test of a checkpoint."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from twotower.files import write_json
from twotower.run import results
from twotower.run.build import build_part, rebuild
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.file import naming
from twotower.training.progress import ProgressBar
from twotower.training.stopping import prepare_to_stop
from twotower.types import RunInfo


def evaluate(config: DictConfig) -> dict[str, float]:
    """Rebuild a checkpoint's run from the checkpoint alone and repeat its test.

    Raises:
        UserError: if the data on disk are not those of the checkpoint.
    """
    checkpoint = load_checkpoint(config.ckpt_path, trusted=config.trusted)
    info: RunInfo = checkpoint["twotower"]
    saved = restore_config(info, saved_config.resolved(config)[0])
    has_bar = saved["trainer"].get("enable_progress_bar") is not False
    fixed: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    with naming(config.ckpt_path):
        trainer = build_part(
            saved, "trainer", callbacks=[ProgressBar(20)] if has_bar else [], **fixed
        )
    prepare_to_stop(trainer)
    data, task = rebuild(saved, checkpoint, trainer)
    data.evaluate_after(config.clicks, config.shown)
    run = trainer.validate if config.split == "val" else trainer.test
    run(task, data, verbose=False)
    values = task.results[config.split]
    record = {**info.choices, "data_note": data.note, "seed": saved["seed"], config.split: values}
    if trainer.is_global_zero:
        results.print_table(record, Path(config.ckpt_path))
        if config.output:
            write_json(Path(config.output), record)
    return values
