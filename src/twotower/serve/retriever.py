"""A trained model with its data, which answers questions: ``from twotower import load``."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.data.batches.features import events_of_items
from twotower.data.batches.rows import hidden
from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare.left_out import PREFIX
from twotower.data.prepare.newcomers import from_values
from twotower.errors import UserError, check_choice
from twotower.layers.feature_embedding import FeatureEmbedding, reads_times
from twotower.retrieval.exact import encode_corpus, encode_items, encode_users
from twotower.serve.candidates import Candidates, checked_k
from twotower.serve.filters import Where, matching_items
from twotower.serve.index import IndexedItems
from twotower.serve.lookup import Lookup
from twotower.serve.person import Person, context_values
from twotower.training.run_info import RunInfo
from twotower.types import HASHES, Model

RawId = int | str
Part = Literal["val", "test"]


class Retriever:
    """A model with the data that it was trained on, on the CPU; scores are those of evaluation.

    Answers are frames with the columns ``rank``, ``item`` (raw id), ``title`` and ``category``
    (null if unknown), ``score``, and for users ``seen``: has the user interacted with the item?

    Args:
        data: the data module, set up.
        model: with its trained weights.
        info: of the checkpoint.
    """

    def __init__(self, data: RetrievalDataModule, model: Model, info: RunInfo) -> None:
        self.data = data
        self.model: Model = model.train(False)
        self.name = f"{info.choices['model']} on {info.choices['data']}, seed {info.config['seed']}"
        self.cold_ids: str | None = info.config["model"].get("cold_ids")
        self.users = Lookup(data.ids["user"]["user"], "user", rest=data.ids.get(f"{PREFIX}user"))
        self.index: IndexedItems | None = None  # searched instead of all item vectors
        titles = data.ids["item"].to_dict().get("title")
        self.items = Lookup(data.ids["item"]["item"], "item", titles, data.ids.get(f"{PREFIX}item"))

    @property
    def hashes_users(self) -> bool:
        """Does the model read hashes of users' raw ids, so that an unknown one has rows as well?"""
        embeddings = (own for own in self.model.modules() if isinstance(own, FeatureEmbedding))
        return any(HASHES["user_id"] in own.names for own in embeddings)

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """A row per item: ``item``, ``title``, ``category``, ``cold`` (training never saw it)."""
        title = self.items.title
        names = [*self.data.meta["categories"], None]  # the last for index -1
        category = [names[index] for index in self.data.tables["category"].tolist()]
        return pl.DataFrame({"item": self.items.raw}).with_columns(
            title=pl.lit(None, pl.String) if title is None else title.cast(pl.String),
            category=pl.Series(category, dtype=pl.String),
            cold=pl.int_range(pl.len()) >= self.data.schema.num_train_items,
        )

    @cached_property
    def item_vectors(self) -> Tensor:
        """``(num_items, dim)``, in the order of ``catalogue``."""
        with torch.no_grad():
            chunks = self.data.corpus(torch.device("cpu"))
            return encode_corpus(self.model, chunks, self.data.schema.num_items)

    def item_vector(
        self, item_id: RawId | None = None, *, features: Mapping[str, Any] | None = None
    ) -> Tensor:
        """``(dim,)`` of an item of the data, or of a new item given by its features.

        Args:
            item_id: raw id.
            features: raw values by name; the id's vector follows the model's ``cold_ids``.

        Raises:
            UserError: for an unknown id or feature, and for both or none of id and features.
        """
        if (item_id is None) == (features is None):
            raise UserError("item_vector takes item_id, or the features of a new item")
        if features is None:
            return self.item_vectors[self.items.row(item_id)]
        with torch.no_grad():
            new = from_values("item", self.data.schema.item, features, self.data.encodings)
            return encode_items(self.model, new)[0]

    def user_vector(
        self,
        user_id: RawId | None = None,
        *,
        history: Sequence[RawId] | None = None,
        features: Mapping[str, Any] | None = None,
        before: Part | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """``(dim,)``, or ``(num_interests, dim)``, of a user of the data or of a new user.

        Args:
            user_id: raw id.
            history: raw item ids of a new user, oldest first; may be empty.
            features: raw values of a new user by name; the others are unknown.
            before: see :meth:`recommend`.
            context: see :meth:`recommend`.

        Raises:
            UserError: for an unknown id or feature, and for both or none of id and history.
        """
        if user_id is not None and history is None:
            return self._vector(self.person(user_id, before, context))[0]
        if user_id is None and history is not None:
            return self._vector(self.newcomer(history, features, context))[0]
        raise UserError("user_vector takes user_id, or the history of a new user")

    def recommend(
        self,
        user_id: RawId,
        k: int = 10,
        seen: bool | None = None,
        before: Part | None = None,
        where: Where = None,
        context: Mapping[str, Any] | None = None,
    ) -> pl.DataFrame:
        """The ``k`` best items for a user of the data.

        Args:
            user_id: raw id.
            k: how many; the frame is shorter if fewer items are left.
            seen: keep items of the user's interactions; None: as in evaluation, ``data.mask_seen``
                (``except_targets`` keeps seen items only if they are targets of ``before``).
            before: ``val`` or ``test``: as evaluation saw the user, before the first held-out
                interaction of that part, so the list is that of evaluation. None: as of today.
            where: conditions on items, see :func:`twotower.serve.filters.matching_items`.
            context: raw values of the request by name, ``{"hour": 20}``; others are unknown, or
                with ``before`` those of the held-out interaction.

        Raises:
            UserError: for an unknown id or context, a ``k`` out of range, and conditions that no
                item meets.
        """
        return self._best(self.person(user_id, before, context), k, seen, where)

    def recommend_history(
        self,
        history: Sequence[RawId],
        k: int = 10,
        seen: bool | None = None,
        features: Mapping[str, Any] | None = None,
        where: Where = None,
        context: Mapping[str, Any] | None = None,
    ) -> pl.DataFrame:
        """The ``k`` best items for a new user; the id's vector follows the model's ``cold_ids``.

        Args:
            history: raw item ids, oldest first; may be empty.
            k: see :meth:`recommend`.
            seen: keep items of the history, see :meth:`recommend`.
            features: raw values by name; the others are unknown.
            where: see :meth:`recommend`.
            context: see :meth:`recommend`.

        Raises:
            UserError: see :meth:`recommend`, and for an unknown feature.
        """
        return self._best(self.newcomer(history, features, context), k, seen, where)

    def similar(self, item_id: RawId, k: int = 10, where: Where = None) -> pl.DataFrame:
        """The ``k`` other items with the largest cosine to an item; ``score`` is the cosine.

        Raises:
            UserError: see :meth:`recommend`.
        """
        row = self.items.row(item_id)
        return self.nearest(self.item_vectors[row], k, [row], where)

    def nearest(
        self, vector: Tensor, k: int = 10, without: Sequence[int] = (), where: Where = None
    ) -> pl.DataFrame:
        """Like :meth:`similar`, for any item vector ``(dim,)``; ``without`` some rows."""
        k = checked_k(k, len(self.item_vectors) - len(without))
        excluded = torch.tensor(without, dtype=torch.long)
        unit, items = F.normalize(vector[None], dim=1), F.normalize(self.item_vectors, dim=1)
        candidates = Candidates.of(items, matching_items(self.data, where))
        score, index = candidates.best(unit, torch.zeros_like(excluded), excluded, k)
        return self._answer(score[0], index[0])

    def history(self, user_id: RawId, num: int = 10) -> pl.DataFrame:
        """Rows of ``catalogue`` of the user's last interactions, the latest first."""
        return self.catalogue[self.person(user_id).items.flip(0)[:num].numpy()]

    def trained(self, user_id: RawId) -> bool:
        """Did training see the user? If not, the id's vector follows the model's ``cold_ids``."""
        return bool(self.users.row(user_id) < self.data.meta["num_train_users"])

    @cached_property
    def reads_history(self) -> bool:
        """Does a user's vector depend on the history?"""
        vectors = (self._vector(self.newcomer(ids)) for ids in ([], self.items.raw[:3].to_list()))
        return reads_times(self.model) or not torch.equal(*vectors)

    def person(
        self,
        user_id: RawId,
        before: Part | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Person:
        """A user of the data, with all interactions or those before a held-out part."""
        row = self.users.row(user_id)
        tables = self.data.tables
        start, end = tables["offset"][row : row + 2].tolist()
        num_targets = 0
        if before is not None:
            check_choice("before", before, ("val", "test"))
            position = tables[f"position/{before}"]
            place = int(torch.searchsorted(position, start))
            if place == len(position) or position[place] >= end:
                raise UserError(f"user_id={user_id} has no held-out interaction in {before}")
            end, num_targets = int(position[place]), int(tables[f"targets/{before}"][place])
        features = self.data.user_features(torch.tensor([end]), torch.tensor([row]))
        features |= context_values(self.data, context)
        items = tables["interactions/item"][start : end + num_targets].long()
        return Person(features, *items.split([end - start, num_targets]))

    def newcomer(
        self,
        history: Sequence[RawId],
        features: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Person:
        """A user whom the data do not have.

        Raises:
            UserError: for a history that is not a list of ids, or whose times the model needs.
        """
        if isinstance(history, str) or not hasattr(history, "__iter__"):
            raise UserError(f"history={history!r}: give a list of item ids, the oldest first")
        schema, length = self.data.schema, self.data.options.history_length
        rows = [self.items.row(item, f"history=[…,{item}]") for item in history]
        items = torch.tensor(rows, dtype=torch.long)
        new = from_values("user", schema.user, features or {}, self.data.encodings)
        new |= context_values(self.data, context)
        if length > 0:
            known = torch.where(items < schema.num_train_items, items + 1, 0)[-length:]
            new["history"] = F.pad(known.int(), (length - len(known), 0))[None]  # (1, length)
        for feature in schema.user:
            if feature.kind == "event":
                name = feature.name.removeprefix("history_")
                new[feature.name] = events_of_items(self.data.tables, name, new["history"], items)
        if reads_times(self.model):
            if rows:
                raise UserError(
                    "history=[…]: this model reads the times of a history, and ids have none: ask "
                    "for a user_id, or train with model.history.times=false"
                )
            new["history_time"] = torch.zeros(1, length, dtype=torch.long)
        return Person(new, items)

    def candidates(self, where: Where = None) -> Candidates | IndexedItems:
        """The items of users' lists: those of the index if there is one, else all vectors.

        Raises:
            UserError: for conditions with an index, and as :func:`matching_items`.
        """
        if self.index is None:
            return Candidates.of(self.item_vectors, matching_items(self.data, where))
        if where:
            raise UserError(f"where={where} needs the vectors of all items: leave out export=")
        return self.index

    def _vector(self, person: Person) -> Tensor:
        with torch.no_grad():
            return encode_users(self.model, person.features)  # (1, dim), or (1, num_interests, dim)

    def _best(self, person: Person, k: int, seen: bool | None, where: Where) -> pl.DataFrame:
        k = checked_k(k, self.data.schema.num_items)
        mask_seen = self.data.mask_seen if seen is None else not seen
        row = torch.zeros_like(person.items)
        pairs = hidden(row, person.items, person.targets[None], mask_seen)
        score, index = self.candidates(where).best(self._vector(person), *pairs, k)
        found = torch.isin(index[0], person.items)[score[0] > -torch.inf]
        return self._answer(score[0], index[0]).with_columns(seen=pl.Series(found.numpy()))

    def _answer(self, score: Tensor, index: Tensor) -> pl.DataFrame:
        shown = score > -torch.inf  # the others are hidden
        rows = self.catalogue[index[shown].numpy()].drop("cold")
        rows = rows.insert_column(0, pl.int_range(1, len(rows) + 1, eager=True).alias("rank"))
        return rows.with_columns(score=pl.Series(score[shown].numpy()))
