"""What the checkpoints of a run will tell of it: a new one, or one that goes on from a checkpoint."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from twotower.errors import UserError
from twotower.files import write_text
from twotower.run import settings
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.saved_config import Plain
from twotower.run.checkpoint.trusted import UntrustedError, check_targets, trusted_packages
from twotower.run.run_folder import HYDRA
from twotower.types import RunInfo
from twotower.wording import masked


def new_run(config: DictConfig) -> tuple[Plain, RunInfo]:
    """The config as plain values, and what the run's checkpoints will say of it."""
    hydra = HydraConfig.get()
    choices: Any = OmegaConf.to_container(OmegaConf.create(hydra.runtime.choices))
    choices = {key: value for key, value in choices.items() if not key.startswith("hydra/")}
    plain, repeats = saved_config.resolved(config)
    return plain, describe(plain, repeats, choices, told(hydra.overrides.task))


def told(overrides: Sequence[str]) -> list[str]:
    """Overrides that records repeat: no addresses of downloads, which may hold a password or a token."""
    return [
        masked(text)
        for text in overrides
        if not settings.ADDRESS.fullmatch(settings.key_of(text).split(".")[-1])
    ]


def write_record(folder: Path, config: DictConfig, is_resumed: bool) -> None:
    """Write what Hydra would of a run's settings, but no secret: config, overrides, and Hydra's own.

    Args:
        folder: of the run.
        config: as it was composed.
        is_resumed: the record goes beside the first one.
    """
    hydra: Any = HydraConfig.instance().cfg
    target = folder / HYDRA
    if is_resumed:
        target /= f"resumed-{datetime.now():%Y-%m-%d-%H-%M-%S-%f}"
    target.mkdir(parents=True, exist_ok=True)
    for name, part in (
        ("config", config),
        ("hydra", hydra),
        ("overrides", hydra.hydra.overrides.task),
    ):
        write_text(target / f"{name}.yaml", masked(OmegaConf.to_yaml(part)))


def warn_of_strangers(info: RunInfo, trusted: str | Iterable[str] | None) -> None:
    """Say it at the start if commands will refuse the run's checkpoints, or need a setting to read them."""
    try:
        check_targets(info.config, trusted_packages(trusted))
    except UntrustedError as error:
        print(f"note: to read this run's checkpoints takes a setting: {error}", file=sys.stderr)
    except UserError as error:
        print(
            f"warning: this run's checkpoints will not be taken up again: {error}", file=sys.stderr
        )


def resumed_run(config: DictConfig) -> tuple[Plain, RunInfo]:
    """The same for a run that goes on from ``ckpt_path``.

    Raises:
        UserError: for a checkpoint that is none of ours, and a command line that contradicts it.
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
    """What checkpoints tell of a run with this config, before its data are known."""
    found = settings.flat(plain, repeats=repeats)
    return RunInfo(choices, overrides, saved_config.kept(plain), repeats, found)
