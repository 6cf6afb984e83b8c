"""Exports a checkpoint as files for other systems (``src/export.py``)."""

from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from twotower.data.datamodule import RetrievalDataModule
from twotower.export import card, manifest
from twotower.export.packages import PACKAGES, require
from twotower.run.build import build_metrics, build_part, rebuild
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.saved_config import resolved
from twotower.run.run_folder import RunFolder
from twotower.training.run_info import RunInfo
from twotower.wording import printable


def export(config: DictConfig) -> dict[str, Any]:
    """Export a checkpoint, or check an export.

    Returns:
        The manifest.

    Raises:
        UserError: for missing packages, a wrong setting, other data than the checkpoint's, and a
            folder that must not be replaced.
    """
    if config.check:
        record = manifest.check(Path(config.check))
        what = printable(f"{record['model']} on {record['data']}")
        print(f"{config.check}: {what}, {len(record['files'])} files, all as they were exported")
        return record
    require(*PACKAGES)
    from twotower.export import console, folder  # these need the optional packages

    ckpt_path = Path(config.ckpt_path)
    in_run = ckpt_path.parent.name == "checkpoints"
    run_folder = ckpt_path.parent.parent if in_run else ckpt_path.parent
    target = Path(config.output).absolute() if config.output else run_folder / "export"
    measure = folder.Measure(**config.parity)
    index = build_part(config, "index")
    checkpoint = load_checkpoint(ckpt_path, trusted=config.trusted)
    saved = restore_config(checkpoint["twotower"], resolved(config)[0])
    with folder.alone(target):
        folder.check_target(target, config.force)
        screen = Console(stderr=True)
        with screen.status("data and model") as status:
            data, task = rebuild(saved, checkpoint)
            about = _about(checkpoint, data, ckpt_path)
            model, user_vectors = task.model.train(False).float(), config.user_vectors
            say = partial(screen.print, soft_wrap=True, markup=False, highlight=False)
            record = folder.write_export(
                target, about, model, data, index, user_vectors, measure, status.update, say
            )
    console.show(record, target)
    return record


def _about(
    checkpoint: dict[str, Any], data: RetrievalDataModule, ckpt_path: Path
) -> dict[str, Any]:
    info: RunInfo = checkpoint["twotower"]
    run = RunFolder.of(ckpt_path)
    is_tested = ckpt_path.name == run.best.name or not run.best.exists()
    record = run.read_record() if is_tested else {}
    test = record.get("test")
    return {
        "model": info.choices["model"],
        "data": info.choices["data"],
        "data_fingerprint": data.fingerprint,
        "data_note": data.note,
        "overrides": info.overrides,
        "seed": info.config["seed"],
        "exported": datetime.now(timezone.utc).date().isoformat(),
        "dataset": card.about_data(data),
        "metrics": {"val": info.val, "test": test},
        "half_width": card.half_widths(run.ranks, build_metrics(info.config, data), test or {}),
        "popularity": record.get("popularity"),
        "settings": info.config,
    }
