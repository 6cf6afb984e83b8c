"""The LightningDataModule of every data set: index loaders, and batches built on the device."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from twotower.data import sampling
from twotower.data.batches import features, rows
from twotower.data.batches.distinct import distinct_items
from twotower.data.batches.loader import EvalLoader, TrainLoader
from twotower.data.batches.train_pairs import TrainPairs, train_pairs
from twotower.data.frames import Reader
from twotower.data.mined_negatives import current_vectors
from twotower.data.prepare.engine import Choice
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.hashing import Hashes
from twotower.data.prepare.newcomers import new_users
from twotower.data.prepare.options import GROUPS, Options
from twotower.data.prepare.store import Preparation
from twotower.data.splits import Split
from twotower.distributed.sharding import Block
from twotower.errors import UserError, check_number
from twotower.types import Batch, EvalBatch, EvalIndex, Features, Interactions, Schema, TrainIndex

CORPUS_CHUNK = 65_536


class RetrievalDataModule(pl.LightningDataModule):
    """A reader's data, prepared, split, and batched by tensor operations on the device.

    Args:
        reader: parses the official files.
        split: which interactions are for training, validation and test.
        data_dir: raw files; may be read-only when they are there.
        cache_dir: prepared data.
        batch_size: positives per process and training step; None: set it before training.
        positives: what an epoch takes, see :class:`TrainLoader`, like ``min_history``.
        eval_batch_size: users per evaluation step.
        min_value: see :class:`~twotower.data.prepare.filters.Filters`, like the next two.
        history_length: see :class:`~twotower.data.prepare.options.Options`, like the next.
        mask_seen: which items of a user's earlier parts are hidden, see
            :func:`twotower.data.batches.rows.hidden`.
        seed: of order, negatives and dropout.
        shuffle_window: see :class:`TrainLoader`; with a number, tables that grow with users and
            interactions stay mapped on the host.
        negatives: draws a training step's negatives; None for evaluation alone.
        max_per_user: see :class:`~twotower.data.prepare.filters.Filters`, like the next.
        clock_context: see :class:`~twotower.data.prepare.options.Options`, like the next two.
        hashed: see :class:`~twotower.data.prepare.hashing.Hashes`, like the next.
        engine: see :class:`~twotower.data.prepare.engine.Choice`, like the next two.
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
        batch_size: int | None,
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
        negatives: sampling.Sampler | None = None,
        min_history: int | None = None,
        history_times: bool = False,
        max_per_user: int | None = None,
        thinning_seed: int = 0,
        clock_context: list[str] | None = None,
        numeric_buckets: int | None = None,
        history_features: list[str] | None = None,
        hashed: dict[str, int] | None = None,
        hashes: int = 2,
        engine: str = "auto",
        engine_memory_gb: float | None = None,
        engine_folder: str | None = None,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.batch_size = batch_size or 0  # no loader takes 0
        self.positives = positives
        self.eval_batch_size = eval_batch_size
        filters = Filters(min_value, duplicates, k_core, max_per_user, thinning_seed)
        events = (tuple(clock_context or ()), numeric_buckets, tuple(history_features or ()))
        own: Any = (tuple(group_shares), history_times, *events, Hashes(dict(hashed or {}), hashes))
        self.options = Options(filters, split, history_length, *own)
        self.options.check()
        rows.check_mask_seen(mask_seen)
        check_number("data.seed", seed, 0, 2**32 - 1)
        places = (Path(data_dir), Path(cache_dir), Choice(engine, engine_memory_gb, engine_folder))
        self.preparation = Preparation(reader, self.options, *places)
        self.mask_seen = mask_seen
        self.seed = seed
        self.shuffle_window = shuffle_window
        self.negatives = negatives
        self.min_history = min_history
        self.fixed_shapes = False  # True: batches are padded to as many rows as they can need
        self.trains_elsewhere = False  # True: Lightning's loop gets indices and no batches
        self.evaluate_after(None, None)
        self.tables: dict[str, Tensor] = {}
        self._train_pairs: TrainPairs | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load the prepared data, and prepare them first where they are missing or out of date.

        Raises:
            UserError: for missing or malformed raw files, and a damaged cache without raw files.
        """
        if self.tables:
            return
        arrays, self.ids, self.meta, self.encodings = self.preparation.load()
        schema = Schema.from_plain(self.meta["schema"])
        self.schema = schema._replace(num_behaviours=len(self.meta["behaviours"]))
        self.fingerprint, self.note = self.meta["fingerprint"], self.meta["note"]
        self.tables = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def train_dataloader(self) -> TrainLoader:
        """Batches of training positions."""
        position, user = self.tables["position/train"], self.tables["interactions/user"]
        order = (self.positives, self.batch_size, self.seed)
        share = (*self._rank(), self.shuffle_window)
        touch, length = partial(rows.touch, self.tables), self.options.history_length
        return TrainLoader(position, user, *order, *share, touch, length, self.min_history)

    def val_dataloader(self) -> EvalLoader:
        """Batches of users with validation targets."""
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """Batches of users with test targets."""
        return self._eval_loader("test")

    def _eval_loader(self, part: str) -> EvalLoader:
        position = self.tables[f"position/{part}"]  # (num_users,)
        num_targets = self.tables[f"targets/{part}"]
        if (clicks := self._new_user_clicks) is not None:
            known = self.meta["num_train_users"]
            position, num_targets = new_users(self.tables, position, num_targets, known, clicks)
        return EvalLoader(position, num_targets, self.eval_batch_size, *self._rank())

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def evaluate_after(self, clicks: int | None, shown: int | None) -> None:
        """Evaluate only new users, or with short histories, from now on; None: as usual.

        Args:
            clicks: only users outside of training, each after that many clicks.
            shown: histories hold only the last so many clicks.

        Raises:
            UserError: for a negative number.
        """
        check_number("clicks", clicks or 0, 0)
        check_number("shown", shown or 0, 0)
        self._new_user_clicks, self._shown_clicks = clicks, shown

    @property
    def has_oracle(self) -> bool:
        """Whether the best possible ranking is known, as for synthetic data."""
        return "latent/user" in self.tables

    def on_after_batch_transfer(
        self, batch: TrainIndex | EvalIndex, dataloader_idx: int = 0
    ) -> Batch | EvalBatch | TrainIndex:
        """Turn indices into a batch, on the device they were moved to."""
        if isinstance(batch, EvalIndex):
            return self.eval_batch(batch)
        return batch if self.trains_elsewhere else self.train_batch(batch)

    def share_tables(self, other: "RetrievalDataModule") -> None:
        """Use the tables of a module of the same data, so that a device holds them once."""
        self.tables, self._train_pairs = other.tables, other._train_pairs

    def train_batch(self, index: TrainIndex, seeded: bool = False) -> Batch:
        """Draw negatives, gather features, keep each distinct item once.

        With ``seeded`` the caller has seeded the generators, as a recorded function cannot.
        """
        if self.negatives is None:
            raise UserError("the data module draws no negatives: build it with `negatives`")
        positives = self._positives(index)
        own = positives.own  # (global_batch,) to (batch,)
        position, positive, user = own(index.position), own(positives.item), own(positives.user)
        inputs = self.user_features(position, user, self._history(len(position)))
        if not seeded:  # for negatives and dropout of this step
            sampling.seed(index.seed, index.position.device)
        drawn = self.negatives(positives._replace(vectors=current_vectors(self, inputs)))
        if index.rank > 0:  # the same draws for all, but another dropout
            sampling.seed(index.seed + index.rank, index.position.device)
        tables = self._tables_on(index.position.device)
        item = torch.cat([positive, drawn.item.flatten()])
        room = min(len(item), self.schema.num_train_items) if self.fixed_shapes else None
        distinct, row = distinct_items(item, room, padding=self.schema.num_items)
        # padding gets the features of some item, which no loss reads
        known = distinct.clamp_max(self.schema.num_train_items - 1)
        negative, num_draws = sampling.negative_rows(drawn, row[len(positive) :], distinct)
        excluded = None
        if negative is None and drawn.exclude_positives:
            excluded = positives.pairs.mask(user, distinct, self.fixed_shapes)
        return Batch(
            user=inputs,
            item=self.item_features(known),
            item_index=distinct,
            category=tables["category"][known].long().masked_fill(distinct != known, -1),
            positive=row[: len(positive)],
            negative=negative,
            num_draws=num_draws,
            log_q=sampling.log_q_of(drawn, known),
            num_pairs=len(positive) * (1 + drawn.num),
            behaviour=rows.take_known(tables, "interactions/behaviour", position),
            excluded=excluded,
            in_batch=drawn.in_batch,
            share=len(positive) / (index.num_rows or len(index.position) / index.world_size),
            weight=rows.take_known(tables, "interactions/weight", position),
            negative_weight=drawn.weight,
        )

    def _positives(self, index: TrainIndex) -> sampling.Positives:
        tables = self._tables_on(index.position.device)
        item = rows.take(tables["interactions/item"], index.position).long()  # (global_batch,)
        user = rows.take(tables["interactions/user"], index.position).long()
        if self._train_pairs is None:
            known = (tables, self.schema.num_train_items, item.device)
            self._train_pairs = train_pairs(*known, self.shuffle_window is not None)
        shown = rows.take_known(tables, "interactions/shown", index.position)
        place = (index.rank, index.world_size)
        return sampling.Positives(item, user, self._train_pairs, *place, shown)

    def eval_batch(self, index: EvalIndex) -> EvalBatch:
        """Users with their histories, targets and what they have seen before."""
        tables = self._tables_on(index.position.device)
        user = rows.take(tables["interactions/user"], index.position).long()  # (batch,)
        target = rows.targets(tables, index)  # (batch, num_targets)
        seen = rows.seen(tables, index.position)
        seen_row, seen_item = rows.hidden(*seen, target, self.mask_seen)
        own = self.user_features(index.position, user)
        if self._shown_clicks is not None and "history" in own:
            own["history"][:, : max(0, self.options.history_length - self._shown_clicks)] = 0
        return EvalBatch(
            user=features.with_truth(tables, own, "user", user),
            target=target,
            seen_row=seen_row,
            seen_item=seen_item,
            group=rows.groups(tables, target, user, self.schema, self.meta["num_train_users"]),
            user_index=user,
        )

    def item_features(self, item: Tensor) -> dict[str, Tensor]:
        """Features of corpus indices ``(batch,)``, each ``(batch, ...)``."""
        return features.item_features(self._tables_on(item.device), self.schema, item)

    def corpus(self, device: torch.device, block: Block | None = None) -> Iterator[Features]:
        """Features of all items in order, or of a block of them, in chunks."""
        for item in (block or Block(0, 1, self.schema.num_items)).chunks(CORPUS_CHUNK, device):
            yield features.with_truth(self.tables, self.item_features(item), "item", item)

    def train_interactions(self) -> Interactions:
        """All training interactions, for models fitted in closed form."""
        return Interactions(*(index.long() + 1 for index in rows.train_rows(self.tables)))

    def user_features(
        self, position: Tensor, user: Tensor, history: Callable[..., Any] = features.history
    ) -> dict[str, Tensor]:
        """Features just before ``(batch,)`` positions, see :func:`features.user_features`."""
        read = (self._tables_on(position.device), self.schema, self.options.history_length)
        return features.user_features(*read, position, user, history)

    def _history(self, num: int) -> Callable[..., Any]:
        """What reads the histories of ``num`` training positions."""
        if self.positives != "sequences":
            return features.history
        room = self._order.most_sequences(num) if self.fixed_shapes else None
        return partial(features.sequences, room=room)

    @cached_property
    def _order(self) -> TrainLoader:
        return self.train_dataloader()

    def _tables_on(self, device: torch.device) -> dict[str, Tensor]:
        if self.tables["category"].device != device:
            self.tables = rows.moved(self.tables, device, self.shuffle_window is not None)
            self._train_pairs = None
        return self.tables
