"""Ends a trial of a search that is worse than earlier trials were after as many epochs."""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from twotower.errors import UserError, check_choice, check_number


class Pruning(Callback):
    """Compares the best validation so far with a threshold, after 1, 3, 9, … epochs.

    The thresholds come from trials that had ended before this one began, so the same trial ends
    after the same epoch whenever it runs, beside whichever others.

    Args:
        monitor: the validation metric.
        mode: ``max`` or ``min``.
        first_epoch: epochs before the first comparison.
        factor: each further comparison comes after so many times as many epochs.
        thresholds: value to reach at each comparison, None: goes on; None for all: no comparison.

    Raises:
        UserError: for values that make no sense.
    """

    def __init__(
        self,
        monitor: str,
        mode: str,
        first_epoch: int,
        factor: int,
        thresholds: list[float | None] | None,
    ) -> None:
        check_choice("callbacks.pruning.mode", mode, ("max", "min"))
        check_number("callbacks.pruning.first_epoch", first_epoch, 1)
        check_number("callbacks.pruning.factor", factor, 2)
        self.monitor = monitor
        self.better = max if mode == "max" else min
        self.thresholds = {
            first_epoch * factor**rung: value
            for rung, value in enumerate(thresholds or [])
            if value is not None
        }
        self.curve: dict[int, float] = {}  # validation by the number of epochs trained
        self.pruned = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a resumed trial that was pruned before, without another epoch."""
        trainer.should_stop = trainer.should_stop or self.pruned

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the value, and compare.

        Raises:
            UserError: if the metric is not measured.
        """
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise UserError(f"callbacks.pruning.monitor={self.monitor} is not measured")
        before = max(self.curve, default=0)
        epoch = trainer.current_epoch + 1
        self.curve[epoch] = float(trainer.callback_metrics[self.monitor])
        best = self.better(self.curve.values())
        if trainer.should_stop or epoch == trainer.max_epochs:
            return  # the training ends anyway, and the trial is complete
        # a validation every few epochs may be after the epoch of a comparison
        due = [value for at, value in self.thresholds.items() if before < at <= epoch]
        if any(_is_worse(best, value, self.better) for value in due):
            self.pruned = True
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"pruned after epoch {epoch}: {self.monitor} {best:.4f}", flush=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed trial goes on with."""
        return {"curve": dict(self.curve), "pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the checkpoint's values."""
        self.curve, self.pruned = dict(state_dict["curve"]), bool(state_dict["pruned"])


def _is_worse(value: float, threshold: float, better: Any) -> bool:
    return math.isnan(value) or better(value, threshold) != value
