"""From a checkpoint to the files that other systems read: what ``src/export.py`` does."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from twotower.data.datamodule import RetrievalDataModule
from twotower.export import manifest
from twotower.export.packages import PACKAGES, require
from twotower.run.build import build_part, rebuild
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.saved_config import resolved
from twotower.types import RunInfo
from twotower.wording import printable


def export(config: DictConfig) -> dict[str, Any]:
    """Export a checkpoint, or check an export that is there.

    Returns:
        The manifest.

    Raises:
        UserError: for missing packages, a wrong setting, other data than the checkpoint's, and a folder that is taken.
    """
    if config.check:
        return _check(Path(config.check))
    require(*PACKAGES)
    from twotower.export import console, folder  # these need the optional packages

    ckpt_path = Path(config.ckpt_path)
    target = Path(config.output) if config.output else _run_folder(ckpt_path) / "export"
    measure = folder.Measure(**config.parity)
    index = build_part(config, "index")
    checkpoint = load_checkpoint(ckpt_path, trusted=config.trusted)
    saved = restore_config(checkpoint["twotower"], resolved(config)[0])
    with folder.alone(target):
        folder.check_target(target, config.force)
        with Console(stderr=True).status("data and model") as status:
            data, task = rebuild(saved, checkpoint)
            about = _about(checkpoint, data, folder.run_metrics(ckpt_path))
            model, user_vectors = task.model.train(False).float(), config.user_vectors
            record = folder.write_export(
                target, about, model, data, index, user_vectors, measure, status.update
            )
    console.show(record, target)
    return record


def _check(folder: Path) -> dict[str, Any]:
    record = manifest.check(folder)
    what = printable(f"{record['model']} on {record['data']}")
    print(f"{folder}: {what}, {len(record['files'])} files, all as they were exported")
    return record


def _run_folder(ckpt_path: Path) -> Path:
    return ckpt_path.parent.parent if ckpt_path.parent.name == "checkpoints" else ckpt_path.parent


def _about(
    checkpoint: dict[str, Any], data: RetrievalDataModule, test: dict[str, float] | None
) -> dict[str, Any]:
    info: RunInfo = checkpoint["twotower"]
    return {
        "model": info.choices["model"],
        "data": info.choices["data"],
        "data_fingerprint": data.fingerprint,
        "data_note": data.note,
        "overrides": info.overrides,
        "seed": info.config["seed"],
        "metrics": {"val": info.val, "test": test},
        "settings": info.config,
    }
