"""The only LightningModule: any model, any loss, full-ranking evaluation."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from twotower.data.mined_negatives import miners
from twotower.distributed.collectives import Placeholder, gather_to_first
from twotower.distributed.torchrec_tables import TorchRecTables
from twotower.errors import UserError
from twotower.metrics.base import RankMetric
from twotower.optimizers.row_sparse import check_clipping, clip_gradients
from twotower.training import strategy, torchrec
from twotower.training.evaluation import Evaluation, cure_of_overflow
from twotower.training.run_info import RunInfo
from twotower.types import Batch, EvalBatch, Loss, LossOutput, MakeOptimizer, Model


class RetrievalTask(pl.LightningModule):
    """Trains a model with a loss and ranks the whole corpus for every held-out interaction.

    Args:
        model: gives the vectors.
        loss: None for evaluation only.
        optimizer: makes an optimizer from parameters; None for evaluation only.
        metrics: updated with each target's rank.
        group_names: of the columns of ``EvalBatch.group``; the unnamed one is all targets.
        info: the run's part of a checkpoint, ``twotower``; None: no checkpoint is written.
        test_name: prefix of logged test metrics.
        scheduler: called with ``optimizer`` and ``num_steps``, None if the training has no end.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss | None,
        optimizer: MakeOptimizer | None,
        metrics: list[RankMetric],
        group_names: tuple[str, ...],
        info: RunInfo | None,
        test_name: str = "test",
        scheduler: Callable[..., LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.evaluation = Evaluation(model, metrics, group_names)
        self._metric_modules = torch.nn.ModuleList(metrics)  # so that they move with the device
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.info = info
        self.test_name = test_name
        self.step: Callable[[Batch], LossOutput] = self._step  # a callback may compile it
        self.trains_elsewhere = False  # True: steps are trained outside of Lightning's loop
        self.mean_loss: Tensor | None = None  # of such steps since the last batch
        self.seconds_elsewhere = 0.0  # of all such steps
        self.results: dict[str, dict[str, float]] = {}  # last evaluation of each part, unrounded
        self.keeps_ranks = True  # False: a test computes its metrics alone
        # of the last test, in process 0: (num_targets, 3) user, item, rank
        self.ranks = torch.empty(0, 3, dtype=torch.int32)
        self._ranks: list[Tensor] = []
        self._optimizer: Optimizer | None = None
        self._placeholder: Placeholder | None = None
        self._torchrec: TorchRecTables | None = None

    def setup(self, stage: str) -> None:
        """Make the optimizer before DDP wraps the model: it may take tables over from DDP.

        Raises:
            UserError: for settings that the optimizer refuses.
        """
        if stage == "fit":
            self._optimizer = self.make_optimizer()
            if self.trainer.gradient_clip_val:
                check_clipping(
                    self._optimizer, self.trainer.world_size, str(self.trainer.precision)
                )
            device, local_size = self.trainer.strategy.root_device, self.trainer.num_devices
            self._torchrec = torchrec.hand_over(self._optimizer, device, local_size)
        placeholder = strategy.leave_out_of_ddp(self)
        self._placeholder = placeholder if stage == "fit" else None

    def make_optimizer(self) -> Optimizer:
        """An optimizer of all parameters, which marks those that it trains by rows.

        Raises:
            UserError: for settings that the optimizer refuses.
        """
        assert self.optimizer is not None
        try:
            return self.optimizer(self.model.parameters())
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            name = self.optimizer.func.__name__  # type: ignore[attr-defined]
            raise UserError(f"optimizer.* does not fit {name}: {error}") from error

    def teardown(self, stage: str) -> None:
        """Take the tables back from TorchRec."""
        if self._torchrec is not None:
            self._torchrec.release()
            self._torchrec = None

    def configure_optimizers(self) -> Any:
        """One optimizer over all parameters, and its scheduler."""
        if self.scheduler is None or self._optimizer is None:
            return self._optimizer
        steps = self.trainer.estimated_stepping_batches
        num_steps = int(steps) if math.isfinite(steps) else None
        self.trainer.fit_loop._combined_loader = None  # or a resumed run would not set its position
        made = self.scheduler(optimizer=self._optimizer, num_steps=num_steps)
        return [self._optimizer], [{"scheduler": made, "interval": "step"}]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, but including tables that are trained by rows."""
        if gradient_clip_val is not None and gradient_clip_val > 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            clip_gradients(parameters, gradient_clip_val, gradient_clip_algorithm or "norm")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; terms are logged every ``trainer.log_every_n_steps`` steps.

        Raises:
            UserError: if the loss is no longer finite.
        """
        output = self.step(batch)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: never
        if every and (self.global_step + 1) % every == 0:
            if not torch.isfinite(output.total):
                cure = cure_of_overflow(str(self.trainer.precision))
                raise UserError(
                    f"the loss is {output.total.item()} at step {self.global_step}: {cure}"
                )
            self.log("train/loss", output.total, prog_bar=True)
            if self.scheduler is not None and (optimizer := self._optimizer) is not None:
                self.log(f"lr-{type(optimizer).__name__}", optimizer.param_groups[0]["lr"])
            self.log_dict({f"train/{name}": term for name, term in output.terms.items()})
        if self.trains_elsewhere:
            assert self.mean_loss is not None
            return self.mean_loss
        return output.total if self._placeholder is None else output.total + self._placeholder()

    def _step(self, batch: Batch) -> LossOutput:
        assert self.loss is not None
        return self.loss(self.model(batch), batch)

    def on_validation_epoch_start(self) -> None:
        """Encode the corpus once."""
        self._start()

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        """Rank the corpus for some users."""
        self.evaluation.rank(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all processes."""
        self._finish("val")

    def on_test_epoch_start(self) -> None:
        """Encode the corpus once."""
        self._start()
        self._ranks = []

    def test_step(self, batch: EvalBatch, batch_idx: int) -> None:
        """Rank the corpus for some users and keep the ranks."""
        rank = self.evaluation.rank(batch)
        if not self.keeps_ranks:
            return
        user = batch.user_index[:, None].expand_as(rank)
        rows = torch.stack([user, batch.target, rank], 2)  # (batch, num_targets, 3)
        self._ranks.append(rows[rank > 0].int())

    def on_test_epoch_end(self) -> None:
        """Log the metrics and gather the ranks of all processes."""
        self._finish(self.test_name)
        if self.keeps_ranks:
            self.ranks = gather_to_first(torch.cat(self._ranks))
        self._ranks = []

    def _start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        precision = str(self.trainer.precision)
        self.evaluation.start(data.corpus, data.schema.num_items, self.device, precision)

    def _finish(self, part: str) -> None:
        self.results[part] = self.evaluation.finish()
        self.log_dict({f"{part}/{name}": value for name, value in self.results[part].items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's config and data, and gather sharded tables.

        A resumed run mines its first negatives anew, and so this one does with its next.
        """
        assert self.info is not None, "a task without info writes no checkpoint"
        checkpoint["twotower"] = self.info._replace(val=self.results.get("val", {}))._asdict()
        strategy.make_whole(self, checkpoint)
        data = getattr(self.trainer, "datamodule", None)
        for miner in miners(getattr(data, "negatives", None)):
            miner.forget()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the last validation's metrics and this process's part of the optimizer's state."""
        self.results["val"] = dict(checkpoint["twotower"].val)
        strategy.take_own(self._optimizer, checkpoint)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the weights of a checkpoint, see :func:`twotower.training.strategy.own_weights`."""
        return super().load_state_dict(strategy.own_weights(self, state_dict), strict, assign)
