"""Corrections of Lightning's counters, so that a resumed run equals one that was never stopped."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from twotower.training.loggers.csv_logger import RunCSVLogger

Loops = dict[str, Any]
OPTIMIZER = "epoch_loop.automatic_optimization.optim_progress"


class Resume(Callback):
    """Corrects what Lightning restores of loops, log and best score.

    Lightning is wrong after an epoch's end where ``trainer.max_steps`` is set (it counts an epoch
    that it does not train), and after a step that a validation followed (it counts the step twice
    in the log).
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self) -> None:
        self._loops: Loops | None = None
        self._tables: list[RunCSVLogger] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember the loggers that write ``metrics.csv``."""
        self._tables = [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger)]

    def state_dict(self) -> dict[str, Any]:
        """The number of rows of the log; later rows are written again after a restart."""
        return {"num_rows": max([table.num_rows for table in self._tables], default=0)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cut the log after those rows."""
        for table in self._tables:
            table.resume(state_dict["num_rows"])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the state of the loops; called before any callback gets its state."""
        self._loops = checkpoint["loops"]["fit_loop"]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state:
                callback.current_score = state["current_score"]  # Lightning does not restore it

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Correct the counters after early stopping has its state, before the loops get theirs."""
        if self._loops is not None:
            steps = self._loops[OPTIMIZER]["optimizer"]["step"]["total"]["completed"]
            is_over = trainer.should_stop or -1 < trainer.max_steps <= steps
            place_between_batches(self._loops, training_is_over=is_over)
            self._loops = None

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Count rows of the log by optimizer steps: Lightning's count differs after a restart."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def place_between_batches(loops: Loops, training_is_over: bool) -> None:
    """Correct the counters of a checkpoint written at the end of an epoch, in place.

    Lightning writes such a checkpoint just before the epoch ends. A complete epoch is counted as
    ended, with no batch of the next epoch done. An epoch that ``trainer.max_steps`` stopped early
    continues if there are more steps now.

    Args:
        loops: the state of Lightning's fit loop.
        training_is_over: nothing is left to train.
    """
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if epoch["total"]["processed"] < epoch["total"]["started"]:
        return  # within an epoch, between two batches
    if batch["is_last_batch"] or training_is_over:
        for counters in (epoch["total"], epoch["current"]):
            counters["completed"] = counters["processed"]
        batch["is_last_batch"] = False
        optimizer = loops[OPTIMIZER]["optimizer"]
        for counters in (
            batch["current"],
            optimizer["step"]["current"],
            optimizer["zero_grad"]["current"],
            loops["epoch_loop.scheduler_progress"]["current"],
            loops["epoch_loop.val_loop.batch_progress"]["total"],  # Lightning counts it by epochs
        ):
            counters.update(dict.fromkeys(counters, 0))
    else:
        for counters in (epoch["total"], epoch["current"]):
            counters["processed"] -= 1
