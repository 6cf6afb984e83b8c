"""The progress bar, and how it and the lines of epochs name epoch and metric."""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from twotower.wording import PlainConsole, number


def monitor_of(trainer: pl.Trainer) -> str:
    """The metric that chooses the checkpoint, empty without ``callbacks.best``."""
    return getattr(trainer.checkpoint_callback, "monitor", None) or ""


def epoch_name(trainer: pl.Trainer) -> str:
    """``epoch  2/10``, counted from 1."""
    number, last = trainer.current_epoch + 1, trainer.max_epochs or -1
    return f"epoch {number:>{len(str(last))}}/{last}" if last > 0 else f"epoch {number}"


def short_name(monitor: str) -> str:
    """``ndcg@10`` of ``val/ndcg@10``."""
    return monitor.removeprefix("val/")


def bar() -> Progress:
    """A line that is gone at its end, with the field ``figures`` of a task behind it."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=PlainConsole(),
        transient=True,
    )


class ProgressBar(callbacks.ProgressBar):
    """A line for the epoch, validation or test under way, on a terminal only and gone at its end.

    Lightning's own bars are wider than 80 columns, read the metrics after every step, for which a
    GPU has to finish it, and leave their last state on the screen and in files.

    Args:
        refresh_rate: steps between two updates of the metrics; 0: no bar.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self, refresh_rate: int) -> None:
        super().__init__()
        self.refresh_rate = refresh_rate
        self._enabled = refresh_rate > 0
        self._progress: Progress | None = None  # while it is shown
        self._tasks: list[Any] = []  # the last one is shown: a validation interrupts an epoch

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Show nothing in a file or on a terminal without cursor."""
        super().setup(trainer, pl_module, stage)
        if not PlainConsole().is_interactive:
            self.disable()

    def disable(self) -> None:
        """Show nothing; Lightning calls it in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show bars again."""
        self._enabled = self.refresh_rate > 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a bar for the epoch."""
        self._begin(epoch_name(trainer), self.total_train_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance, and update the metrics every ``refresh_rate`` steps."""
        if not self._tasks:  # resumed within an epoch
            self._begin(epoch_name(trainer), self.total_train_batches)
        self._advance(batch_idx)
        loader: Any = trainer.train_dataloader  # it may have passed several batches
        if self._progress is not None and batch_idx % self.refresh_rate < loader.num_passed:
            self._progress.update(self._tasks[-1], figures=_figures(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._end()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a bar for the validation, in place of the epoch's."""
        self._begin("validation", _total(trainer.num_val_batches))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Advance."""
        self._advance(batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._end()

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show a bar that says what is tested: the model, or a ranking to compare it with."""
        name = pl_module.test_name
        title = "test" if name == "test" else f"test of {name}"
        self._begin(title, _total(trainer.num_test_batches))

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Advance."""
        self._advance(batch_idx)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._end()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar before the error or the signal is named."""
        while self._tasks:
            self._end()

    def _begin(self, what: str, total: float) -> None:
        if not self._enabled:
            return
        if self._progress is None:
            self._progress = bar()
            self._progress.start()
        for task in self._tasks:
            self._progress.update(task, visible=False)
        known = total if math.isfinite(total) else None
        self._tasks.append(self._progress.add_task(what, total=known, figures=""))

    def _advance(self, batch_idx: int) -> None:
        if self._progress is not None:
            self._progress.update(self._tasks[-1], completed=batch_idx + 1)

    def _end(self) -> None:
        if self._progress is None:
            return
        self._progress.remove_task(self._tasks.pop())
        if self._tasks:
            self._progress.update(self._tasks[-1], visible=True)
        else:
            self._progress.stop()
            self._progress = None


def _total(num_batches: Any) -> float:
    return sum(num_batches) if isinstance(num_batches, list) else num_batches


def _figures(trainer: pl.Trainer) -> str:
    known, monitor = trainer.callback_metrics, monitor_of(trainer)
    parts = []
    if "train/loss" in known:
        parts.append(f"loss {known['train/loss'].item():#.4g}")
    if monitor in known:
        parts.append(f"{short_name(monitor)} {number(known[monitor].item())}")
    return "  ".join(parts)
