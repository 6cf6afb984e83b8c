"""The only LightningModule: any model, any loss, full-ranking evaluation."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torchmetrics.utilities.distributed import gather_all_tensors

from twotower.distributed.collectives import Placeholder
from twotower.distributed.sharding import shard_of
from twotower.distributed.sharding_checkpoint import own_optimizer, own_tables, whole_optimizer, whole_tables
from twotower.errors import UserError
from twotower.metrics.base import RankMetric
from twotower.optimizers.row_sparse import check_clipping, clip_gradients
from twotower.retrieval.encode import encode_corpus, encode_users, full_precision, in_full
from twotower.retrieval.exact import target_ranks
from twotower.retrieval.forecast import Forecast
from twotower.types import HIDDEN_RANK, Batch, EvalBatch, LossOutput

# logged beside the metrics: all-zero item vectors, and targets that the mask of seen items hides
SHARES = ("zero_items", "hidden_targets")


class RetrievalTask(pl.LightningModule):
    """Trains a model with a loss and ranks the whole corpus for every held-out interaction.

    Args:
        model: has ``forward(batch) -> Towers``, ``encode_user(features)`` and ``encode_item(features)``.
        loss: called with ``(towers, batch)``, returns a ``LossOutput``; None for evaluation alone.
        optimizer: makes an optimizer from parameters; None for evaluation alone.
        scheduler: called with ``optimizer`` and ``num_steps`` of the training, None if that has no end.
        metrics: updated with each user's rank.
        group_names: names of the columns of ``EvalBatch.group``; the unnamed one is everybody.
        about: plain containers that let a checkpoint rebuild the run; stored under ``twotower`` with the last validation.
        test_name: prefix of logged test metrics.
    """

    def __init__(
        self,
        model: Any,
        loss: nn.Module | None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None,
        metrics: list[RankMetric],
        group_names: tuple[str, ...],
        about: dict[str, Any],
        test_name: str = "test",
        scheduler: Callable[..., lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.loss = loss
        self.optimizer, self.scheduler, self.metrics = optimizer, scheduler, metrics
        self._metric_modules = nn.ModuleList(metrics)  # so that they move with the device
        self.group_names = group_names
        self.about = about
        self.test_name = test_name
        self.results: dict[str, dict[str, float]] = {}  # the last evaluation of each part, unrounded
        self.corpus = torch.empty(0)  # item vectors, while evaluating
        self._num_targets = torch.zeros(2, dtype=torch.long)  # of this process: hidden ones, all
        self.ranks = torch.empty(0, 3)  # of the last test: (num_targets, 3) user, item, rank
        self._ranks: list[Tensor] = []
        self._optimizer: Optimizer | None = None
        self._forecast: Forecast | None = None
        self._precision = "32-true"  # of the trainer, for messages
        self._evaluating = ExitStack()  # weights in full precision, from an evaluation's start to its end
        self.step: Callable[[Batch], LossOutput] = self._step  # what a callback may compile
        self._placeholder: Placeholder | None = None

    def setup(self, stage: str) -> None:
        """Make the optimizer before DDP wraps the model: tables that are trained by rows are the optimizer's to average.

        Nor may DDP broadcast the first process's share of a sharded table, or average what different rows got.

        Raises:
            UserError: for settings that the optimizer refuses.
        """
        self._ddp_params_and_buffers_to_ignore = self._names(lambda parameter: shard_of(parameter) is not None)  # DDP reads it
        if stage != "fit":
            return
        assert self.optimizer is not None
        try:
            self._optimizer = self.optimizer(self.model.parameters())
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"optimizer.* does not fit {self.optimizer.func.__name__}: {error}") from error  # type: ignore[attr-defined]
        row_sparse = self._names(lambda parameter: getattr(parameter, "row_sparse", False))
        self._ddp_params_and_buffers_to_ignore += row_sparse
        if self.trainer.gradient_clip_val:
            check_clipping(self._optimizer, self.trainer.world_size, str(self.trainer.precision))
        trained = set(self._names(lambda parameter: parameter.requires_grad))
        if self.trainer.world_size > 1 and trained <= set(self._ddp_params_and_buffers_to_ignore):
            self._placeholder = Placeholder()

    def configure_optimizers(self) -> Any:
        """One optimizer over all parameters, and its scheduler."""
        if self.scheduler is None or self._optimizer is None:
            return self._optimizer
        steps = self.trainer.estimated_stepping_batches
        num_steps = int(steps) if math.isfinite(steps) else None
        self.trainer.fit_loop._combined_loader = None  # or a resumed run would not place it anew
        made = self.scheduler(optimizer=self._optimizer, num_steps=num_steps)
        return [self._optimizer], [{"scheduler": made, "interval": "step"}]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, and tables that are trained by rows with the rest."""
        if gradient_clip_val is not None and gradient_clip_val > 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            clip_gradients(parameters, gradient_clip_val, gradient_clip_algorithm or "norm")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; terms are logged every ``trainer.log_every_n_steps`` steps.

        Raises:
            UserError: if the loss is no longer finite.
        """
        output: LossOutput = self.step(batch)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: never
        if every and (self.global_step + 1) % every == 0:
            if not torch.isfinite(output.total):
                cure = cure_of_overflow(str(self.trainer.precision))
                raise UserError(f"the loss is {output.total.item()} at step {self.global_step}: {cure}")
            self.log("train/loss", output.total, prog_bar=True)
            if self.scheduler is not None and (optimizer := self._optimizer) is not None:
                self.log(f"lr-{type(optimizer).__name__}", optimizer.param_groups[0]["lr"])
            self.log_dict({f"train/{name}": term for name, term in output.terms.items()})
        return output.total if self._placeholder is None else output.total + self._placeholder()

    def _step(self, batch: Batch) -> LossOutput:
        assert self.loss is not None
        return self.loss(self.model(batch), batch)

    def on_validation_epoch_start(self) -> None:
        """Encode the corpus once."""
        self._start_evaluation("val", self.trainer.val_dataloaders, self.trainer.num_val_batches)

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        """Rank the corpus for some users."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all processes."""
        self._finish_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Encode the corpus once."""
        self._start_evaluation(self.test_name, self.trainer.test_dataloaders, self.trainer.num_test_batches)
        self._ranks = []

    def test_step(self, batch: EvalBatch, batch_idx: int) -> None:
        """Rank the corpus for some users, and remember the ranks."""
        rank = self._evaluate(batch)
        user = batch.user_index[:, None].expand_as(rank)
        self._ranks.append(torch.stack([user, batch.target, rank], 2)[rank > 0].int())  # (num_targets, 3)

    def on_test_epoch_end(self) -> None:
        """Log the metrics and put together the ranks of all processes."""
        self._finish_evaluation(self.test_name)
        ranks = torch.cat(self._ranks)
        self._ranks = []
        self.ranks = torch.cat(gather_all_tensors(ranks)) if self.trainer.world_size > 1 else ranks

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the run, and put sharded tables together: a checkpoint is the same for any number of processes."""
        checkpoint["twotower"] = {**self.about, "val": self.results.get("val", {})}
        checkpoint["state_dict"] = whole_tables(self, checkpoint["state_dict"])
        if "optimizer_states" in checkpoint:
            pairs = zip(self.trainer.optimizers, checkpoint["optimizer_states"], strict=True)
            checkpoint["optimizer_states"] = [whole_optimizer(optimizer, state) for optimizer, state in pairs]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the last validation's metrics, and this process's share of the optimizer's state."""
        self.results["val"] = dict(checkpoint["twotower"]["val"])
        if self._optimizer is not None and "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = [own_optimizer(self._optimizer, state) for state in checkpoint["optimizer_states"]]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights as a checkpoint has them, in float64 where they are: of a sharded table, this process's rows.

        Raises:
            UserError: for weights that are missing, unknown, of another shape, or no finite numbers.
        """
        found = own_tables(self, state_dict)
        for name, module in self.named_modules():
            if hasattr(module, "allocate_for"):  # its shapes are known at the first batch, or here
                module.allocate_for(found, f"{name}.")
        check_weights(found, self.state_dict())
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, value in found.items():
            if name in own and value.dtype == torch.float64:
                own[name].data = own[name].data.double()
        return super().load_state_dict(found, strict, assign)

    def metric_names(self) -> list[str]:
        """What an evaluation may log; groups without users are left out of it."""
        labels = [label for metric in self.metrics for label in metric.labels()]
        return [*(_in_group(group, label) for group in self.group_names for label in labels), *SHARES]

    def _names(self, chosen: Callable[[Tensor], bool]) -> list[str]:
        return [name for name, parameter in self.named_parameters() if chosen(parameter)]

    def _start_evaluation(self, part: str, loader: Any, num_steps: list[int | float]) -> None:
        self._precision = str(self.trainer.precision)
        self._num_targets = torch.zeros(2, dtype=torch.long, device=self.device)
        for metric in self.metrics:
            metric.reset()
        self._evaluating.close()  # an earlier evaluation may have been interrupted
        self._evaluating.enter_context(in_full(self.model))
        chunks = self.trainer.datamodule.corpus(self.device)  # type: ignore[attr-defined]
        self.corpus = encode_corpus(self.model, chunks)  # (num_items, dim)
        check_finite(self.corpus, "item", self._precision)
        num_users = sum(map(len, loader.position[: int(num_steps[0])]))
        self._forecast = Forecast(part, int(num_steps[0]), num_users, self.corpus, silent=not self.trainer.is_global_zero)

    def _evaluate(self, batch: EvalBatch) -> Tensor:
        user = encode_users(self.model, batch.user)  # (batch, dim)
        check_finite(user, "user", self._precision)
        rank = target_ranks(user, self.corpus, batch.target, batch.seen_row, batch.seen_item)
        self._num_targets += torch.stack([(rank == HIDDEN_RANK).sum(), (rank > 0).sum()])
        with full_precision(rank.device):
            for metric in self.metrics:
                metric.update(rank, batch.group)
        if self._forecast is not None:
            self._forecast.step(user)
        return rank  # (batch, num_targets)

    def _finish_evaluation(self, part: str) -> None:
        """Metrics over all processes, overall and by group; groups without users are left out."""
        values: dict[str, float] = {}
        for metric in self.metrics:
            for group, row in zip(self.group_names, metric.compute().tolist(), strict=True):
                named = zip(metric.labels(), row, strict=True)
                values |= {_in_group(group, label): value for label, value in named if not math.isnan(value)}
        zero = (self.corpus == 0).all(1).sum().item()  # dead ReLU rows, which are never found
        values["zero_items"] = zero / len(self.corpus)
        hidden, num_targets = self._over_processes(self._num_targets).tolist()
        values["hidden_targets"] = hidden / max(1, num_targets)
        self.corpus = torch.empty(0)
        self._forecast = None  # it holds the corpus
        self._evaluating.close()
        self.results[part] = values
        self.log_dict({f"{part}/{name}": value for name, value in values.items()})

    def _over_processes(self, counts: Tensor) -> Tensor:
        return torch.stack(gather_all_tensors(counts)).sum(0) if self.trainer.world_size > 1 else counts


def _in_group(group: str, label: str) -> str:
    return f"{group}/{label}".lstrip("/")


def cure_of_overflow(precision: str) -> str:
    """What to do about numbers that are no longer finite."""
    usual = "lower optimizer.lr or the loss weights"
    if not precision.startswith("16"):
        return usual
    return f"16-bit floats (trainer.precision={precision}) end at 65,504: take bf16-mixed or 32-true, or {usual}"


def check_finite(vectors: Tensor, side: str, precision: str) -> None:
    """Refuse to rank with vectors that are no numbers: their ranks are, and would look like a result.

    Raises:
        UserError: naming the cure.
    """
    if not torch.isfinite(vectors).all():
        raise UserError(f"{side} vectors are no longer finite numbers: {cure_of_overflow(precision)}")


def check_weights(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of a model.

    Args:
        found: to be loaded.
        own: what the model has in their place.

    Raises:
        UserError: naming the first weight that does not fit.
    """
    for name in found.keys() ^ own.keys():
        where = "the model has none" if name in found else "it has none"
        raise UserError(f"state_dict does not fit the model: {name}, of which {where}")
    for name, value in found.items():
        shape, expected = tuple(value.shape), tuple(own[name].shape)
        if shape != expected:
            raise UserError(f"state_dict: {name} has the shape {shape}, the model's is {expected}")
        if value.is_floating_point() != own[name].is_floating_point() or value.is_complex():
            raise UserError(f"state_dict: {name} is of {value.dtype}, the model's of {own[name].dtype}")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"state_dict: {name} holds numbers that are not finite")
