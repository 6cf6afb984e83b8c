"""What a run is, as its checkpoints will tell: choices, overrides and settings, new or taken up from a checkpoint."""

import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from twotower import saved_config, settings
from twotower.checkpoints import load_checkpoint, restore_config
from twotower.types import UserError


def new_run(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config as plain values, and what the run's checkpoints will say of it."""
    hydra = HydraConfig.get()
    choices = {key: value for key, value in hydra.runtime.choices.items() if not key.startswith("hydra/")}
    about = {"choices": OmegaConf.to_container(OmegaConf.create(choices)), "overrides": list(hydra.overrides.task)}
    plain, repeats = saved_config.resolved(config)
    carried = kept(plain, repeats)
    try:
        saved_config.read_back(carried["config"], is_plain=True)
    except UserError as error:  # a class of the user's own that no option names, say
        print(f"warning: this run's checkpoints cannot be rebuilt: {error}", file=sys.stderr)
    return plain, {**about, **carried}


def resumed_run(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same for a run that goes on from ``ckpt_path``.

    Raises:
        UserError: for a checkpoint that is none of ours, and a command line that contradicts it.
    """
    saved = load_checkpoint(config.ckpt_path)["twotower"]
    today, new = new_run(config)
    plain = restore_config(saved, today)
    about = {"choices": saved["choices"], "fingerprint": saved["fingerprint"]}
    about["overrides"] = saved["overrides"] + [text for text in new["overrides"] if text not in saved["overrides"]]
    return plain, {**about, **kept(plain, saved["repeats"])}


def kept(plain: dict[str, Any], repeats: list[str]) -> dict[str, Any]:
    """What checkpoints carry of a config."""
    return {"config": saved_config.kept(plain), "repeats": repeats, "settings": settings.flat(plain, repeats=repeats)}
