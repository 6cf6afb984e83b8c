"""The callback that looks into a model while it trains: logged as ``diagnostics/…``, drawn into the run's ``plots``."""

from collections import deque
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError, check_number, extra
from twotower.training.diagnostics.measure import Diagnosis, Limits, Sample, measure
from twotower.types import Batch, EvalBatch, TrainIndex
from twotower.wording import printable


class Diagnostics(Callback):
    """Measures any model at validation and test ends, on a sample, and never touches what training computes.

    Its numbers are ``diagnostics/val/…`` and ``diagnostics/test/…``; the latter also stand in the task's results. Each process
    measures its own share of the users, so that none waits for another; the first one's are logged and drawn. Nothing is drawn
    where no test runs. A failure in here ends the diagnostics with a warning, and not the run.

    Args:
        dirpath: folder of the plots.
        every_n_epochs: validations are measured in every so many epochs.
        num_users: about how many users of a process are ranked for.
        num_items: items whose vectors are looked at. Ranks are always among all items.
        num_categories: categories in plots and log, the largest ones.
        num_train_batches: training steps whose pairs the mimic error is taken from, the last ones.
        k: cut-off of hit rates.
        plots: draw what the test has measured, see :meth:`draw_plots`.
    """

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
        settings = {
            "every_n_epochs": every_n_epochs,
            "num_users": num_users,
            "num_items": num_items,
            "k": k,
        }
        for name, value in {
            **settings,
            "num_categories": num_categories,
            "num_train_batches": num_train_batches,
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
        """Remember the last steps: their positions, from which their batches can be built again."""
        loader: Any = trainer.train_dataloader
        self.train.append(loader.last)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the sample of users."""
        if self._is_due(trainer):
            self._collect(batch, batch_idx, int(trainer.num_val_batches[dataloader_idx]))

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the sample of users."""
        if pl_module.test_name == "test":  # no other model's
            self._collect(batch, batch_idx, int(trainer.num_test_batches[dataloader_idx]))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure and log."""
        found = self._measured(trainer, pl_module, "val")
        if found is not None:
            self.history.append({"epoch": float(trainer.current_epoch), **found.values})

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure and log."""
        found = self._measured(trainer, pl_module, "test")
        if found is not None:
            pl_module.results["diagnostics"] = found.values
            self.found = found

    def draw_plots(self) -> None:
        """Draw what the last test has measured; ``run.train`` asks for it once the run's figures are written."""
        if self.plots and self.found is not None:
            from twotower.training.diagnostics.plots import draw  # matplotlib takes its time

            draw(self.dirpath, self.history, self.found)

    def state_dict(self) -> dict[str, Any]:
        """The course of the values and the last steps, which a resumed run goes on with."""
        train = [{"position": index.position, "seed": index.seed} for index in self.train]
        return {"history": [dict(row) for row in self.history], "train": train}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            UserError: for a step that no loader gave.
        """
        self.history = [dict(row) for row in state_dict["history"]]
        for step in state_dict["train"]:
            position, seed = step.get("position"), step.get("seed")
            if not isinstance(position, Tensor) or type(seed) is not int or not 0 <= seed < 2**32:
                raise UserError("the diagnostics' last steps are damaged")
            self.train.append(TrainIndex(position, seed))

    def _is_due(self, trainer: pl.Trainer) -> bool:
        return (
            not trainer.sanity_checking and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        )

    def _collect(self, batch: EvalBatch, batch_idx: int, num_batches: int) -> None:
        """Take batches evenly from the whole evaluation, as users may be sorted."""
        wanted = max(1, self.num_users // max(1, len(batch.target)))
        if batch_idx == 0:
            self.stride = -(-num_batches // wanted)
        if batch_idx % self.stride == 0:
            self.users.append(batch)

    def _measured(self, trainer: pl.Trainer, pl_module: Any, part: str) -> Diagnosis | None:
        """None without users, and after a failure."""
        found = None
        if self.users and not self.has_failed:
            self.has_failed = True
            with extra("the diagnostics are"):
                found = self._measure(trainer, pl_module, part)
                self.has_failed = False
        self.users = []
        return found

    def _measure(self, trainer: pl.Trainer, pl_module: Any, part: str) -> Diagnosis:
        data: RetrievalDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with isolate_rng():  # building a batch seeds its negatives
            train = [self._batch(index, trainer, pl_module) for index in self.train]
        sample = Sample(
            train=train,
            users=self.users,
            corpus=pl_module.evaluation.corpus,
            corpus_features=lambda: data.corpus(pl_module.device),
            item_features=data.item_features,
            category=data.tables["category"].to(pl_module.device).long(),
            category_names=data.meta["categories"],
        )
        found = measure(pl_module.model, sample, self.limits)
        named = {_key(f"diagnostics/{part}/{name}"): value for name, value in found.values.items()}
        pl_module.log_dict(named, rank_zero_only=True)
        return found

    def _batch(self, index: TrainIndex, trainer: pl.Trainer, pl_module: Any) -> Batch:
        """A training batch as it was, on this process's device."""
        data: RetrievalDataModule = trainer.datamodule  # type: ignore[attr-defined]
        known = len(data.tables["interactions/item"])
        if (
            len(index.position) == 0
            or not 0 <= index.position.min() <= index.position.max() < known
        ):
            raise UserError("the diagnostics' last steps are of other data")
        position = index.position.to(pl_module.device)
        return data.train_batch(
            TrainIndex(position, index.seed, trainer.global_rank, trainer.world_size)
        )


def _key(name: str) -> str:
    """A name with a category's in it as loggers take it: Lightning refuses one word, and no table has line ends."""
    return printable(name).replace("/dataloader_idx_", "/dataloader idx ")
