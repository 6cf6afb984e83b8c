"""What a person sees of a training: a progress bar, and a line for each epoch."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from torch import Tensor

from twotower.training.callbacks import EarlyStopping
from twotower.wording import duration


def monitor_of(trainer: pl.Trainer) -> str:
    """The metric that chooses the checkpoint, empty without ``callbacks.best``."""
    return getattr(trainer.checkpoint_callback, "monitor", None) or ""


class ProgressBar(RichProgressBar):
    """Lightning's bar with the loss and the metric that chooses the checkpoint."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Two figures, so that the bar fits into 80 columns."""
        known, monitor = trainer.callback_metrics, monitor_of(trainer)
        names = {"loss": "train/loss", monitor.rpartition("/")[2]: monitor}
        return {name: f"{known[key]:.4f}" for name, key in names.items() if key in known}

    @property
    def test_description(self) -> str:
        """Says which ranking is tested: the model's, or the best possible one."""
        name = getattr(self.trainer.lightning_module, "test_name", "test")
        return "Testing" if name == "test" else f"Testing {name}"


class EpochLines(Callback):
    """Prints a line for each epoch, and why the training stopped; in a file, too."""

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self._started = 0.0  # of the epoch
        self._loss: Tensor | None = None  # sum over the steps of the epoch
        self._num_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far, for a resumed run."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best epoch of the checkpoint."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._loss, self._num_steps = time.perf_counter(), None, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any
    ) -> None:
        """Sum the loss where it is, without waiting for the device."""
        loss = outputs["loss"].detach()
        self._loss = loss.clone() if self._loss is None else self._loss + loss
        self._num_steps += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch: loss, validation, best so far, seconds, remaining time."""
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or -1
        monitor = monitor_of(trainer)
        value = trainer.callback_metrics.get(monitor)
        if value is not None:
            self._compare(value.item(), epoch, getattr(trainer.checkpoint_callback, "mode", "max"))
        if not trainer.is_global_zero or self._loss is None:
            return
        seconds = time.perf_counter() - self._started
        parts = [f"epoch {epoch:>{len(str(last))}}/{last}" if last > 0 else f"epoch {epoch}"]
        parts.append(f"loss {self._loss.item() / self._num_steps:.4f}")
        if value is not None:
            parts.append(f"{monitor} {value.item():.4f}")
            parts.append(f"best {self.best:.4f} (epoch {self.best_epoch})")
        parts.append(duration(seconds))
        if epoch < last and not trainer.should_stop:
            parts.append(f"at most {duration(seconds * (last - epoch))} left")
        print("  ".join(parts), flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print why the training stopped, and which epoch is tested."""
        if not trainer.is_global_zero:
            return
        reason = "all epochs are done"
        if -1 < trainer.max_steps <= trainer.global_step:
            reason = f"trainer.max_steps={trainer.max_steps} are done"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience:
                reason = f"{callback.monitor} has not risen for {callback.patience} epochs"
        best = f"; best epoch {self.best_epoch}" if self.best_epoch else ""
        print(f"training ends: {reason}{best}", flush=True)

    def _compare(self, value: float, epoch: int, mode: str) -> None:
        if self.best is None or (value > self.best if mode == "max" else value < self.best):
            self.best, self.best_epoch = value, epoch
