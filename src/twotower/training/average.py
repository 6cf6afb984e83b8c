"""An average of the weights, which is validated, tested and kept in their place."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from twotower.distributed.sharding import shard_of
from twotower.errors import UserError, check_number


class Average(WeightAveraging):
    """Exponential moving average of the weights; without ``decay`` it does nothing.

    After each step the average moves towards the weights: ``average = decay * average +
    (1 - decay) * weights``. It starts as the weights after the first step. Validation, test and
    ``best.ckpt`` are of the average, training goes on with the weights; ``last.ckpt`` has both.

    Args:
        decay: 0.999 averages over about 1,000 steps; None: no average.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self, decay: float | None) -> None:
        if decay is not None:
            check_number("callbacks.average.decay", decay, 0, 0.999999)
        average = get_ema_multi_avg_fn(decay or 0.0)
        super().__init__(use_buffers=False, multi_avg_fn=average)
        self.is_on = decay is not None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the model.

        Raises:
            UserError: for tables that are spread over processes.
        """
        if not self.is_on:
            return
        if any(shard_of(parameter) is not None for parameter in pl_module.parameters()):
            raise UserError(
                "callbacks.average.decay averages whole tables: set model.sharding=none, or leave "
                "it out"
            )
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After each step."""
        return self.is_on and super().should_update(step_idx, epoch_idx)

    def after_step(self, pl_module: pl.LightningModule) -> None:
        """Average after a step that Lightning does not see, which it counts with its next one."""
        if self.is_on:
            assert self._average_model is not None
            self._average_model.update_parameters(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in place of the weights."""
        if self.is_on:
            super().on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The last step in the average."""
        return super().state_dict() if self.is_on else {}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the weights, and the weights beside it."""
        if self.is_on:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Load both."""
        if self.is_on:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
