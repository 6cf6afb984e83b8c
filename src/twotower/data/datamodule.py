"""The LightningDataModule of every data set: prepares once, yields indices, builds batches on the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from twotower.data import sampling
from twotower.data.batches import rows
from twotower.data.batches.distinct import distinct_items
from twotower.data.batches.loader import EvalLoader, TrainLoader
from twotower.data.batches.train_pairs import MappedPairs, TrainPairs
from twotower.data.frames import Reader
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.newcomers import new_users
from twotower.data.prepare.preparation import Preparation
from twotower.data.prepare.prepare import GROUPS, Options
from twotower.data.sampling import Positives, Sampler
from twotower.data.splits import Split
from twotower.errors import UserError, check_number
from twotower.types import Batch, EvalBatch, EvalIndex, Interactions, Schema, TrainIndex

CORPUS_CHUNK = 65_536


class RetrievalDataModule(pl.LightningDataModule):
    """A reader's data, prepared, split, and batched by tensor operations on the device.

    Args:
        reader: parses the official files.
        split: which interactions are for training, validation and test.
        data_dir: raw files; may be read-only when they are there.
        cache_dir: prepared data.
        batch_size: positives per process and training step.
        positives: of an epoch: each of the ``interactions`` once, or as many draws of ``users``.
        eval_batch_size: users per evaluation step.
        min_value: see :class:`~twotower.data.prepare.filters.Filters`, like the next two.
        duplicates: which of repeated pairs to keep.
        k_core: minimum interactions of users and items.
        history_length: see :class:`~twotower.data.prepare.prepare.Options`, like the next.
        group_shares: shares that part head, middle and tail categories.
        mask_seen: what lists hide of a user's earlier parts, see :func:`twotower.data.batches.rows.hidden`.
        seed: of order, negatives and dropout.
        shuffle_window: interactions shuffled together. None: all, which takes memory for each; a number: see
            :class:`~twotower.data.batches.windows.WindowOrder`, and tables that grow with users and
            interactions stay mapped on the host.
        negatives: draws a training step's negatives; None for evaluation alone.
    """

    schema: Schema
    fingerprint: str
    note: str
    group_names = ("", *GROUPS, "warm", "cold", "cold_user")

    def __init__(
        self,
        reader: Reader,
        split: Split,
        data_dir: str,
        cache_dir: str,
        batch_size: int,
        positives: str,
        eval_batch_size: int,
        min_value: float | None,
        duplicates: str,
        k_core: int,
        history_length: int,
        group_shares: list[float],
        mask_seen: bool | Literal["except_targets"],
        seed: int,
        shuffle_window: int | None = None,
        negatives: Sampler | None = None,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.batch_size = batch_size
        self.positives = positives
        self.eval_batch_size = eval_batch_size
        filters = Filters(min_value, duplicates, k_core)
        self.options = Options(filters, split, history_length, tuple(group_shares))  # type: ignore[arg-type]
        self.options.check()
        rows.check_mask_seen(mask_seen)
        check_number("data.seed", seed, 0, 2**32 - 1)
        self.data_dir = Path(data_dir)
        self.preparation = Preparation(reader, self.options, self.data_dir, Path(cache_dir))
        self.mask_seen = mask_seen
        self.seed = seed
        self.shuffle_window = shuffle_window
        self.negatives = negatives
        self.fixed_shapes = (
            False  # True: as many item rows in every batch as it can need, some of them padding
        )
        self._new_user_clicks: int | None = None
        self._shown_clicks: int | None = None
        self.tables: dict[str, Tensor] = {}
        self._train_pairs: TrainPairs | None = None

    # Preparation

    def setup(self, stage: str | None = None) -> None:
        """Load the prepared data, preparing them first where they are missing or the raw files have changed.

        Raises:
            UserError: for missing or malformed raw files, and a damaged cache whose raw files are not there.
        """
        if self.tables:
            return
        prepared = self.preparation.load()
        self.meta = prepared.meta
        self.ids, self.encodings = prepared.tables, prepared.encodings
        self.schema = Schema.from_plain(prepared.meta["schema"])._replace(
            num_behaviours=len(prepared.meta["behaviours"])
        )
        self.fingerprint = prepared.meta["fingerprint"]
        self.note = prepared.meta["note"]
        self.tables = {name: torch.from_numpy(array) for name, array in prepared.arrays.items()}

    @property
    def folder(self) -> Path:
        """Where the prepared data of these options are, or will be."""
        return self.preparation.folder

    # Loaders

    def train_dataloader(self) -> TrainLoader:
        """Batches of training positions."""
        position, user = self.tables["position/train"], self.tables["interactions/user"]
        read_ahead = partial(rows.touch, self.tables)
        return TrainLoader(
            position,
            user,
            self.positives,
            self.batch_size,
            self.seed,
            *self._rank(),
            self.shuffle_window,
            read_ahead,
        )

    def val_dataloader(self) -> EvalLoader:
        """Batches of users with validation targets."""
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """Batches of users with test targets."""
        return self._eval_loader("test")

    def _eval_loader(self, part: str) -> EvalLoader:
        position, num_targets = (
            self.tables[f"position/{part}"].long(),
            self.tables[f"targets/{part}"].long(),
        )
        if self._new_user_clicks is not None:
            num_train_users = self.meta["num_train_users"]
            position, num_targets = new_users(
                self.tables, position, num_targets, num_train_users, self._new_user_clicks
            )
        return EvalLoader(position, num_targets, self.eval_batch_size, *self._rank())

    def _rank(self) -> tuple[int, int]:
        return (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )

    def evaluate_after(self, clicks: int | None, shown: int | None) -> None:
        """Evaluate new users, or with short histories, from now on; None: as the split says.

        Args:
            clicks: new users alone, from that many clicks.
            shown: histories end with that many clicks, and lack those before.

        Raises:
            UserError: for what is no number of clicks.
        """
        for name, value in (("clicks", clicks), ("shown", shown)):
            if value is not None:
                check_number(name, value, 0)
        self._new_user_clicks, self._shown_clicks = clicks, shown

    @contextmanager
    def hiding_all_seen(self) -> Iterator[None]:
        """Inside, evaluation hides all that a user has seen, whatever ``mask_seen`` is."""
        before, self.mask_seen = self.mask_seen, True
        try:
            yield
        finally:
            self.mask_seen = before

    @property
    def has_oracle(self) -> bool:
        """Do these data know the best possible ranking?"""
        return "latent/user" in self.tables

    # Batches

    def on_after_batch_transfer(
        self, batch: TrainIndex | EvalIndex, dataloader_idx: int = 0
    ) -> Batch | EvalBatch:
        """Turn indices into a batch, on the device they were moved to."""
        return self.train_batch(batch) if isinstance(batch, TrainIndex) else self.eval_batch(batch)

    def train_batch(self, index: TrainIndex) -> Batch:
        """Draw negatives, gather features, keep each distinct item once.

        Raises:
            UserError: for a data module without ``negatives``.
        """
        if self.negatives is None:
            raise UserError("the data module draws no negatives: build it with `negatives`")
        positives = self._positives(index)
        sampling.seed(index.seed, index.position.device)  # negatives and dropout of this step
        drawn = self.negatives(positives)
        if index.rank > 0:  # the same draws for all, but another dropout
            sampling.seed(index.seed + index.rank, index.position.device)
        tables = self._tables_on(index.position.device)
        position, positive, user = (
            positives.own(part) for part in (index.position, positives.item, positives.user)
        )  # (batch,)
        item = torch.cat([positive, drawn.item.flatten()])
        room = min(len(item), self.schema.num_train_items) if self.fixed_shapes else None
        distinct, row = distinct_items(item, room, padding=self.schema.num_items)
        known = distinct.clamp_max(
            self.schema.num_train_items - 1
        )  # padding has some item's features, and nobody asks for it
        negative_row, own = row[len(positive) :], drawn.item.dim() == 2
        return Batch(
            user=self.user_features(position, user),
            item=self.item_features(known),
            item_index=distinct,
            category=tables["category"][known].long().masked_fill(distinct != known, -1),
            positive=row[: len(positive)],
            negative=negative_row.view_as(drawn.item) if own else None,
            num_draws=None
            if own
            else torch.zeros_like(distinct).index_add_(
                0, negative_row, torch.ones_like(negative_row)
            ),
            log_q=drawn.log_q.expand(len(distinct))
            if drawn.log_q.dim() == 0
            else drawn.log_q[known],
            num_pairs=len(positive) * (1 + drawn.num),
            behaviour=rows.take(tables["interactions/behaviour"], position).long()
            if self.meta["behaviours"]
            else None,
            excluded=positives.pairs.mask(user, distinct)
            if drawn.exclude_positives and not own
            else None,
            in_batch=drawn.in_batch,
            share=len(positive) * index.world_size / len(index.position),
        )

    def _positives(self, index: TrainIndex) -> Positives:
        tables = self._tables_on(index.position.device)
        item = rows.take(tables["interactions/item"], index.position).long()  # (global_batch,)
        user = rows.take(tables["interactions/user"], index.position).long()
        if self._train_pairs is None:
            known = (self._train_rows, self.schema.num_train_items)
            self._train_pairs = (
                TrainPairs(*known)
                if self.shuffle_window is None
                else MappedPairs(*known, tables, item.device)
            )
        return Positives(item, user, self._train_pairs, index.rank, index.world_size)

    def eval_batch(self, index: EvalIndex) -> EvalBatch:
        """Users with their histories, targets and what they have seen before."""
        tables = self._tables_on(index.position.device)
        user = rows.take(tables["interactions/user"], index.position).long()  # (batch,)
        target = rows.targets(tables, index)  # (batch, num_targets)
        seen = rows.seen(tables, index.position)
        seen_row, seen_item = rows.hidden(*seen, target, self.mask_seen)
        features = self.user_features(index.position, user)
        if self._shown_clicks is not None and "history" in features:
            features["history"][:, : max(0, self.options.history_length - self._shown_clicks)] = 0
        return EvalBatch(
            user=self._with_truth(features, "user", user),
            target=target,
            seen_row=seen_row,
            seen_item=seen_item,
            group=rows.groups(tables, target, user, self.schema, self.meta["num_train_users"]),
            user_index=user,
        )

    def item_features(self, item: Tensor) -> dict[str, Tensor]:
        """Features of corpus indices ``(batch,)``, each ``(batch, ...)``."""
        tables = self._tables_on(item.device)
        return {feature.name: tables[f"item/{feature.name}"][item] for feature in self.schema.item}

    def corpus(self, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Features of all items in order, in chunks."""
        for item in torch.arange(self.schema.num_items, device=device).split(CORPUS_CHUNK):
            yield self._with_truth(self.item_features(item), "item", item)

    def train_interactions(self) -> Interactions:
        """All training interactions, for models fitted in closed form."""
        user, item = self._train_rows()
        return Interactions(user.long() + 1, item.long() + 1)

    def _train_rows(self) -> tuple[Tensor, Tensor]:
        """``(num_interactions,)`` users and items of the training part, where the tables are."""
        position = self.tables["position/train"].long()
        return self.tables["interactions/user"][position], self.tables["interactions/item"][
            position
        ]

    def user_features(self, position: Tensor, user: Tensor) -> dict[str, Tensor]:
        """Features of users ``(batch,)`` as they were just before the interactions at ``position``, each ``(batch, ...)``."""
        tables, schema = self._tables_on(position.device), self.schema
        length = self.options.history_length
        return {
            feature.name: rows.history(tables, position, user, length, schema.num_train_items)
            if feature.kind == "history"
            else rows.take(tables[f"user/{feature.name}"], user)
            for feature in schema.user
        }

    def _with_truth(
        self, features: dict[str, Tensor], side: str, index: Tensor
    ) -> dict[str, Tensor]:
        """Add the planted truth of synthetic data, for the oracle."""
        truth = self._tables_on(index.device).get(f"latent/{side}")
        return features if truth is None else {**features, "latent": rows.take(truth, index)}

    def _tables_on(self, device: torch.device) -> dict[str, Tensor]:
        if self.tables["category"].device != device:
            stay = rows.STAYING if self.shuffle_window is not None else ()
            self.tables = {
                name: table if name.startswith(stay) else table.to(device)
                for name, table in self.tables.items()
            }
            self._train_pairs = None
        return self.tables
