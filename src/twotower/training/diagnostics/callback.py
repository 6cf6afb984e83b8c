"""The callback that measures a model while it trains, logs ``diagnostics/…`` and draws plots."""

from collections import deque
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import check_number, extra
from twotower.training.diagnostics.measure import Diagnosis, Limits, Sample, measure
from twotower.types import Batch, EvalBatch, TrainIndex
from twotower.wording import printable


class Diagnostics(Callback):
    """Measures any model on a sample when a validation or test ends, without a change to training.

    The numbers are logged as ``diagnostics/val/…`` and ``diagnostics/test/…``; the latter also
    stand in the task's results. Each process measures its own share of the users, all at the same
    time, as each holds a block of the item vectors; those of the first one are logged and drawn.
    Nothing is drawn where no test runs. After an error, the diagnostics end with a warning and the
    run continues.

    Args:
        dirpath: folder of the plots.
        every_n_epochs: measure the validations of every so many epochs.
        num_users: users of a process to rank for, about so many.
        num_items: items of which vectors are compared. Ranks are always among all items.
        num_categories: categories in plots and log, the largest ones.
        num_train_batches: last training steps; their pairs give the mimic error.
        k: cut-off of hit rates.
        plots: draw the values of the test, see :meth:`draw_plots`.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(
        self,
        dirpath: str,
        every_n_epochs: int,
        num_users: int,
        num_items: int,
        num_categories: int,
        num_train_batches: int,
        k: int,
        plots: bool,
    ) -> None:
        for name, value in {
            "every_n_epochs": every_n_epochs,
            "num_users": num_users,
            "num_items": num_items,
            "num_categories": num_categories,
            "num_train_batches": num_train_batches,
            "k": k,
        }.items():
            check_number(f"callbacks.diagnostics.{name}", value, 1)
        self.dirpath = Path(dirpath)
        self.every_n_epochs = every_n_epochs
        self.num_users = num_users
        self.limits = Limits(num_items, num_categories, k)
        self.plots = plots
        self.train: deque[TrainIndex] = deque(maxlen=num_train_batches)
        self.users: list[EvalBatch] = []
        self.history: list[dict[str, float]] = []  # of validations
        self.found: Diagnosis | None = None  # of the test
        self.has_failed = False

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Keep the positions of the last steps; their batches are built again from them."""
        loader: Any = trainer.train_dataloader
        self.train.extend(loader.passed(self.train.maxlen))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        *args: int,
    ) -> None:
        """Collect the sample of users."""
        is_due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if is_due and not trainer.sanity_checking:
            self._collect(batch, batch_idx, int(trainer.num_val_batches[0]))

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        *args: int,
    ) -> None:
        """Collect the sample of users."""
        if pl_module.test_name == "test":  # not a test of the oracle
            self._collect(batch, batch_idx, int(trainer.num_test_batches[0]))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure and log."""
        found = self._measure_users(trainer, pl_module, "val")
        if found is not None:
            self.history.append({"epoch": float(trainer.current_epoch), **found.values})

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure and log."""
        found = self._measure_users(trainer, pl_module, "test")
        if found is not None:
            pl_module.results["diagnostics"] = found.values
            self.found = found

    def draw_plots(self) -> None:
        """Draw the values of the last test; ``run.train`` asks for it after metrics.json."""
        if self.plots and self.found is not None:
            # matplotlib takes time to import
            from twotower.training.diagnostics.plots import draw

            draw(self.dirpath, self.history, self.found)

    def state_dict(self) -> dict[str, Any]:
        """The values so far and the last steps, for a resumed run."""
        train = [{"position": index.position, "seed": index.seed} for index in self.train]
        return {"history": [dict(row) for row in self.history], "train": train}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the values and steps of a checkpoint."""
        self.history = [dict(row) for row in state_dict["history"]]
        self.train.extend(TrainIndex(**step) for step in state_dict["train"])

    def _collect(self, batch: EvalBatch, batch_idx: int, num_batches: int) -> None:
        """Take batches evenly from the whole evaluation, as users may be sorted."""
        wanted = max(1, self.num_users // max(1, len(batch.target)))
        if batch_idx == 0:
            self.stride = -(-num_batches // wanted)
        if batch_idx % self.stride == 0:
            self.users.append(batch)

    def _measure_users(self, trainer: pl.Trainer, pl_module: Any, part: str) -> Diagnosis | None:
        """None without users, and after a failure."""
        users, self.users = self.users, []
        if not users or self.has_failed:
            return None
        self.has_failed = True
        with extra("the diagnostics are"):
            found = self._measure(users, trainer, pl_module, part)
            self.has_failed = False
            return found
        return None

    def _measure(
        self, users: list[EvalBatch], trainer: pl.Trainer, pl_module: Any, part: str
    ) -> Diagnosis:
        data: RetrievalDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with isolate_rng():  # building a batch seeds its negatives
            train = [self._batch(index, trainer, pl_module) for index in self.train]
        sample = Sample(
            train=train,
            users=users,
            corpus=pl_module.evaluation.items,
            corpus_features=lambda: data.corpus(pl_module.device),
            item_features=data.item_features,
            category=data.tables["category"].to(pl_module.device).long(),
            category_names=data.meta["categories"],
        )
        found = measure(pl_module.model, sample, self.limits)
        for name, value in found.values.items():
            key = printable(f"diagnostics/{part}/{name}")  # a category's name may have line ends
            pl_module.log(key, value, rank_zero_only=True)
        return found

    def _batch(self, index: TrainIndex, trainer: pl.Trainer, pl_module: Any) -> Batch:
        """A training batch as it was, on this process's device."""
        data: RetrievalDataModule = trainer.datamodule  # type: ignore[attr-defined]
        position = index.position.to(pl_module.device)
        own = TrainIndex(position, index.seed, trainer.global_rank, trainer.world_size)
        return data.train_batch(own)
