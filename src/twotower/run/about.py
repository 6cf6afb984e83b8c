"""What a run writes about itself: its checkpoints' ``RunInfo``, ``.hydra/`` and its state."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from twotower import signals
from twotower.errors import UserError
from twotower.files import write_text
from twotower.run import settings
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.saved_config import Plain
from twotower.run.checkpoint.trusted import check_targets, trusted_packages
from twotower.run.cli import failure_line
from twotower.run.run_folder import HYDRA, RunFolder
from twotower.training.run_info import RunInfo
from twotower.wording import masked


def new_run(config: DictConfig) -> tuple[Plain, RunInfo]:
    """The config of a run as plain values, and what its checkpoints write about it."""
    hydra = HydraConfig.get()
    choices: Any = OmegaConf.to_container(OmegaConf.create(hydra.runtime.choices))
    choices = {key: value for key, value in choices.items() if not key.startswith("hydra/")}
    plain, repeats = saved_config.resolved(config)
    return plain, describe(plain, repeats, choices, recorded(hydra.overrides.task))


def recorded(overrides: Sequence[str]) -> list[str]:
    """The overrides without secrets: addresses of downloads may hold a password or a token."""
    found = []
    for text in overrides:
        name = settings.key_of(text).split(".")[-1]
        if not settings.ADDRESS.fullmatch(name):
            found.append(masked(text))
    return found


def write_record(folder: Path, config: DictConfig, is_resumed: bool) -> None:
    """Write ``.hydra/`` as Hydra would, with secrets masked.

    Args:
        folder: of the run.
        config: as it was composed.
        is_resumed: write into a folder of its own beside the first files.
    """
    hydra: Any = HydraConfig.instance().cfg
    target = folder / HYDRA
    if is_resumed:
        target /= f"resumed-{datetime.now():%Y-%m-%d-%H-%M-%S-%f}"
    target.mkdir(parents=True, exist_ok=True)
    parts = {"config": config, "hydra": hydra, "overrides": hydra.hydra.overrides.task}
    for name, part in parts.items():
        write_text(target / f"{name}.yaml", masked(OmegaConf.to_yaml(part)))


@contextmanager
def under_way(folder: RunFolder) -> Iterator[None]:
    """Inside, the folder names this process; an error that ends the run is in ``failed.json``."""
    folder.failure.unlink(missing_ok=True)  # of an earlier attempt
    folder.sign()
    try:
        yield
    except Exception as error:
        if not signals.asked():  # a process that was asked to end has not failed
            write_failure(folder, error)
        raise
    finally:
        folder.process.unlink(missing_ok=True)


def write_failure(folder: RunFolder, error: Exception) -> None:
    """Write ``failed.json``: the error on one line, and the overrides of the run."""
    overrides = [masked(text) for text in HydraConfig.get().overrides.task]
    folder.write_failure(masked(failure_line(error)), overrides)


def warn_of_refusal(info: RunInfo, trusted: str | Iterable[str] | None) -> None:
    """Print a line at the start of a run if other commands will refuse its checkpoints."""
    try:
        check_targets(info.config, trusted_packages(trusted))
    except UserError as error:
        print(f"note: commands will refuse this run's checkpoints: {error}", file=sys.stderr)


def resumed_run(config: DictConfig) -> tuple[Plain, RunInfo]:
    """The same for a run that continues from ``ckpt_path``.

    Raises:
        UserError: for a file that is not a checkpoint, or settings that contradict it.
    """
    saved: RunInfo = load_checkpoint(config.ckpt_path, trusted=config.trusted)["twotower"]
    today, new = new_run(config)
    plain = restore_config(saved, today)
    overrides = saved.overrides + [text for text in new.overrides if text not in saved.overrides]
    info = describe(plain, saved.repeats, saved.choices, overrides)
    return plain, info._replace(fingerprint=saved.fingerprint)


def describe(
    plain: Plain, repeats: list[str], choices: dict[str, Any], overrides: list[str]
) -> RunInfo:
    """What checkpoints of this config write about their run, before its data are known."""
    found = settings.flat(plain, repeats=repeats)
    return RunInfo(choices, overrides, saved_config.kept(plain), repeats, found)
