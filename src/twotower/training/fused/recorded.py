"""Recorded steps of a single run on a GPU, proved on its own first steps before they are used."""

from typing import Literal

import pytorch_lightning as pl

from twotower.errors import UserError
from twotower.training.fused.limits import why_not_here, why_not_recorded
from twotower.training.fused.steps import NotProvedError, Steps
from twotower.training.fused.whole_steps import Member

Record = bool | Literal["auto"]
SETTING = "callbacks.speed.record"


def record_steps(trainer: pl.Trainer, record: Record) -> None:
    """Replay the steps of a training from its first one on, or say why not.

    Args:
        trainer: at the start of its training.
        record: ``callbacks.speed.record``.

    Raises:
        UserError: with ``record=True``, for what cannot be recorded.
    """
    on_gpu = trainer.strategy.root_device.type == "cuda"
    if record is False or (record == "auto" and not on_gpu):
        return
    reason = why_not_recorded(trainer.strategy.root_device) or why_not_here(trainer)
    if reason is not None:
        _refuse(record, reason)
        return
    Member(trainer, _RecordedSteps(record).train).join()


class _RecordedSteps:
    """Trains the steps of one run, unless the first ones are not right."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.steps = Steps(record=True)

    def train(self, member: Member) -> None:
        """Train the next stretch."""
        is_first = self.steps.fused is None
        try:
            self.steps.train([member], [member])
        except NotProvedError as error:
            _refuse(self.record, str(error))
            member.trained, member.data.fixed_shapes = None, False
            return
        if is_first:
            print("steps are recorded and replayed (callbacks.speed.record)", flush=True)


def _refuse(record: Record, reason: str) -> None:
    if record is True:
        raise UserError(f"{SETTING}=true: {reason}; set it to auto or false")
    print(f"{SETTING}=auto: steps are not recorded: {reason}", flush=True)
