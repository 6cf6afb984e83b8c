"""The trainer of a command, which must use all processes that torchrun has started."""

import os
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from twotower.errors import UserError
from twotower.run.build import build_part
from twotower.run.checkpoint.saved_config import Plain


def build_trainer(settings: Plain, **extra: Any) -> pl.Trainer:
    """The trainer of ``trainer.*``.

    Args:
        settings: of the trainer.
        extra: passed on to it.

    Raises:
        UserError: if the processes that torchrun has started are others than those of the
            settings, each of which would do the whole work; and for processes that are spawned.
    """
    trainer: pl.Trainer = build_part({"trainer": settings}, "trainer", **extra)
    if _by_torchrun() and trainer.num_devices * trainer.num_nodes != int(os.environ["WORLD_SIZE"]):
        raise _others(int(os.environ["WORLD_SIZE"]))
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _MultiProcessingLauncher) and launcher._start_method == "spawn":
        raise UserError(
            "trainer.strategy: processes that are spawned cannot take over what a run holds: set "
            "trainer.strategy=ddp"
        )
    return trainer


def with_all_processes(settings: Plain) -> Plain:
    """Settings of a trainer for the processes that torchrun has started, if they ask for no others.

    Lightning compares their number with ``devices`` and ``num_nodes`` only where these ask for
    several processes: with the defaults each process would do the whole work.
    """
    is_default = settings.get("devices") in (1, "auto", -1) and settings.get("num_nodes") == 1
    if not _by_torchrun() or not is_default:
        return settings
    num = int(os.environ["WORLD_SIZE"])
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", num))  # on this machine
    return {**settings, "devices": devices, "num_nodes": num // devices}


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _others(started: int) -> UserError:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", started))
    return UserError(
        f"torchrun has started {started} processes, and trainer.* asks for others: set "
        f"trainer.devices={local} trainer.num_nodes={started // local} trainer.strategy=ddp"
    )
