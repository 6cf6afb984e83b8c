"""Resuming: a run goes on exactly where its checkpoint was written."""

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, Timer

from twotower.training.loggers.csv_logger import RunCSVLogger

Loops = dict[str, Any]
OPTIMIZER = "epoch_loop.automatic_optimization.optim_progress"


class Resume(Callback):
    """Tells Lightning where a checkpoint was written, which it otherwise guesses from its counters.

    It guesses wrong after an epoch's end where ``trainer.max_steps`` is set (it counts an epoch
    that it does not train), and after a step that a validation followed (it counts the step twice
    in the log).
    """

    def __init__(self) -> None:
        self._loops: Loops | None = None
        self._tables: list[RunCSVLogger] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Know the tables whose rows a checkpoint counts."""
        self._tables = [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger)]

    def state_dict(self) -> dict[str, Any]:
        """Rows of the log: these are done, those that follow come again."""
        return {"num_rows": max([table.num_rows for table in self._tables], default=0)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after those rows."""
        for table in self._tables:
            table.resume(state_dict["num_rows"])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Before any callback and any loop gets its state."""
        self._loops = checkpoint["loops"]["fit_loop"]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if (
                isinstance(callback, ModelCheckpoint)
                and callback.state_key in checkpoint["callbacks"]
            ):
                state = checkpoint["callbacks"][callback.state_key]
                callback.current_score = state["current_score"]  # which Lightning forgets

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the loops get their state, when early stopping has its own."""
        if self._loops is not None:
            steps = trainer.max_steps != -1 and trainer.max_steps <= steps_of(self._loops)
            place_between_batches(self._loops, training_is_over=trainer.should_stop or steps)
            self._loops = None
            if trainer.is_global_zero:
                _tell_what_differs(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Rows are logged by optimizer steps; only after a restart does Lightning's count differ."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def _tell_what_differs(trainer: pl.Trainer) -> None:
    """What happens by the clock happens elsewhere in a resumed run."""
    timed = {
        "trainer.val_check_interval": getattr(trainer, "_val_check_time_interval", None)
        is not None,
        "trainer.max_time": any(isinstance(callback, Timer) for callback in trainer.callbacks),  # type: ignore[attr-defined]
    }
    names = " and ".join(name for name, chosen in timed.items() if chosen)
    if names:
        print(
            f"note: {names} by the clock: the resumed run will differ from an undisturbed one",
            file=sys.stderr,
        )


def steps_of(loops: Loops) -> int:
    """Optimizer steps done."""
    return loops[OPTIMIZER]["optimizer"]["step"]["total"]["completed"]


def place_between_batches(loops: Loops, training_is_over: bool) -> None:
    """Change the counters of a checkpoint of an epoch's end, in place.

    Lightning writes it within the epoch's last moments. An epoch that is complete becomes one that
    is over, with none of the next one's batches done. One that ``trainer.max_steps`` cut short goes
    on, if there are more steps to do now.

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
