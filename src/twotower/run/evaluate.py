"""The evaluate command: repeats the test of a checkpoint."""

from pathlib import Path

from omegaconf import DictConfig

from twotower.errors import check_number
from twotower.run import ranks, results
from twotower.run.build import build_part, rebuild
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.restoring import naming
from twotower.training.stopping import prepare_to_stop


def evaluate(config: DictConfig) -> dict[str, float]:
    """Rebuild a checkpoint's run from the checkpoint alone and repeat its test.

    Raises:
        UserError: if the data on disk are not those of the checkpoint.
    """
    checkpoint = load_checkpoint(config.ckpt_path, trusted=config.trusted)
    about = checkpoint["twotower"]
    saved = restore_config(about, saved_config.resolved(config)[0])
    with naming(config.ckpt_path):
        trainer = build_part(saved, "trainer", logger=False, callbacks=[], enable_checkpointing=False)
    prepare_to_stop(trainer)
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
