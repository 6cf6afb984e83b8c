"""A trained model and its data, ready to answer: what ``from twotower import load`` gives a notebook."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from twotower.data.batches.rows import hidden
from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare.left_out import PREFIX
from twotower.data.prepare.newcomers import from_values
from twotower.errors import UserError
from twotower.retrieval.encode import encode_corpus, encode_items, encode_users
from twotower.retrieval.exact import top_k
from twotower.run.build import rebuild
from twotower.run.checkpoint.checkpoints import load_checkpoint, own_config
from twotower.run.checks.checks import CONF
from twotower.run.environment import read_env_file
from twotower.run.run_folder import RunFolder
from twotower.serve.lookup import Lookup, plain
from twotower.types import Model, RunInfo

RawId = int | str
Part = Literal["val", "test"]


class Person(NamedTuple):
    """A user as the model sees them.

    Attributes:
        features: of the user tower, each ``(1, ...)``.
        items: ``(num_items,)`` corpus indices of what they have interacted with, oldest first.
        targets: ``(num_targets,)`` what a held-out part asks for; empty where nothing is held out.
    """

    features: dict[str, Tensor]
    items: Tensor
    targets: Tensor = torch.empty(0, dtype=torch.long)


class Retriever:
    """Answers from a model and the data that it was trained on, on the CPU; scores are those of the evaluation.

    Answers are frames with the columns ``rank``, ``item`` (raw id), ``title`` and ``category`` (null where the data know none),
    ``score``, and for users ``seen``: have they interacted with it?

    Args:
        data: the data module, set up.
        model: with its trained weights.
        info: what the checkpoint says of itself.
    """

    def __init__(self, data: RetrievalDataModule, model: Model, info: RunInfo) -> None:
        self.data = data
        self.model: Model = model.train(False)
        self.name = f"{info.choices['model']} on {info.choices['data']}, seed {info.config['seed']}"
        self.cold_ids: str | None = info.config["model"].get("cold_ids")
        self.users = Lookup(data.ids["user"]["user"], "user", rest=data.ids.get(f"{PREFIX}user"))
        titles = data.ids["item"].to_dict().get("title")
        self.items = Lookup(data.ids["item"]["item"], "item", titles, data.ids.get(f"{PREFIX}item"))

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """``item``, ``title``, ``category`` and ``cold`` (training never saw it), a row for each item of the corpus."""
        names = pl.Series(self.data.meta["categories"], dtype=pl.String)
        category = pl.Series(self.data.tables["category"].numpy())
        return pl.DataFrame({"item": self.items.raw}).with_columns(
            title=pl.lit(None, pl.String)
            if self.items.title is None
            else self.items.title.cast(pl.String),
            category=names.gather(category.replace(-1, None))
            if len(names)
            else pl.lit(None, pl.String),
            cold=pl.int_range(pl.len()) >= self.data.schema.num_train_items,
        )

    @cached_property
    def item_vectors(self) -> Tensor:
        """``(num_items, dim)``, in the order of ``catalogue``."""
        with torch.no_grad():
            return encode_corpus(self.model, self.data.corpus(torch.device("cpu")))

    def item_vector(
        self, item_id: RawId | None = None, *, features: Mapping[str, Any] | None = None
    ) -> Tensor:
        """``(dim,)`` of an item of the data, or of a new one that is known by its features alone.

        Args:
            item_id: raw id.
            features: raw values by name; the id's vector is by the model's policy for cold ids.

        Raises:
            UserError: for an unknown id or feature, and for both or none of the two.
        """
        if (item_id is None) == (features is None):
            raise UserError("item_vector takes item_id, or the features of a new item")
        if item_id is not None:
            return self.item_vectors[self.items.row(item_id)]
        with torch.no_grad():
            new = from_values("item", self.data.schema.item, features or {}, self.data.encodings)
            return encode_items(self.model, new)[0]

    def user_vector(
        self,
        user_id: RawId | None = None,
        *,
        history: Sequence[RawId] | None = None,
        features: Mapping[str, Any] | None = None,
        before: Part | None = None,
    ) -> Tensor:
        """``(dim,)``, or ``(num_interests, dim)``, of a user of the data, or of a new one with a history.

        Args:
            user_id: raw id.
            history: raw item ids of a new user, oldest first; may be empty.
            features: raw values by name, of a new user; what is not given is unknown.
            before: see :meth:`recommend`.

        Raises:
            UserError: for an unknown id or feature, and for both or none of ``user_id`` and ``history``.
        """
        if (user_id is None) == (history is None):
            raise UserError("user_vector takes user_id, or the history of a new user")
        person = (
            self.person(user_id, before)
            if user_id is not None
            else self.newcomer([] if history is None else history, features)
        )
        return self._vector(person)[0]

    def recommend(
        self, user_id: RawId, k: int = 10, seen: bool | None = None, before: Part | None = None
    ) -> pl.DataFrame:
        """The ``k`` best items for a user of the data.

        Args:
            user_id: raw id.
            k: how many; fewer come where fewer are left.
            seen: keep what the user has interacted with; None: as in evaluation, ``data.mask_seen``. Where that is
                ``except_targets``, an item seen before stays with ``before`` alone, if it is a target.
            before: ``val`` or ``test``: as evaluation saw the user, before the first held-out interaction of that part; the
                list is then the one in which it ranked the target. None: with all that is known of the user today.

        Raises:
            UserError: for an unknown id, and a ``k`` out of range.
        """
        return self._best(self.person(user_id, before), k, seen)

    def recommend_history(
        self,
        history: Sequence[RawId],
        k: int = 10,
        seen: bool | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> pl.DataFrame:
        """The ``k`` best items for a user whom the data do not have; the id's vector is by the model's policy for cold ids.

        Args:
            history: raw item ids, oldest first; empty for a user of whom nothing is known.
            k: see :meth:`recommend`, like the next.
            seen: keep items of the history.
            features: raw values by name; what is not given is unknown.

        Raises:
            UserError: for an unknown id or feature, and a ``k`` out of range.
        """
        return self._best(self.newcomer(history, features), k, seen)

    def similar(self, item_id: RawId, k: int = 10) -> pl.DataFrame:
        """The ``k`` items whose vectors have the largest cosine with an item's, without itself; ``score`` is the cosine.

        Raises:
            UserError: for an unknown id, and a ``k`` out of range.
        """
        row = self.items.row(item_id)
        return self._nearest(self.item_vectors[row], k, torch.tensor([row]))

    def nearest(self, vector: Tensor, k: int = 10) -> pl.DataFrame:
        """The same for any item vector ``(dim,)``, of :meth:`item_vector` say."""
        return self._nearest(vector, k, torch.empty(0, dtype=torch.long))

    def history(self, user_id: RawId, num: int = 10) -> pl.DataFrame:
        """``item``, ``title``, ``category`` and ``cold`` of the user's last interactions, the latest first."""
        items = self.person(user_id).items
        return self.catalogue[items[-num:].flip(0).numpy()] if num > 0 else self.catalogue.clear()

    def trained(self, user_id: RawId) -> bool:
        """Did training see the user? Otherwise the id's vector is by the model's policy for cold ids."""
        return self.users.row(user_id) < self.data.meta["num_train_users"]

    @cached_property
    def reads_history(self) -> bool:
        """Does a user's vector depend on the history?"""
        some = [self.newcomer(history) for history in ([], self.items.raw[:3].to_list())]
        return not torch.equal(self._vector(some[0]), self._vector(some[1]))

    def person(self, user_id: RawId, before: Part | None = None) -> Person:
        """A user of the data, with the features and items that they have today, or had before a held-out part."""
        row = self.users.row(user_id)
        tables = self.data.tables
        start, end = tables["offset"][row : row + 2].tolist()
        num_targets = 0
        if before is not None:
            end, num_targets = self._held_out(user_id, start, end, before)
        features = self.data.user_features(torch.tensor([end]), torch.tensor([row]))
        items, targets = (
            tables["interactions/item"][start : end + num_targets]
            .long()
            .split([end - start, num_targets])
        )
        return Person(features, items, targets)

    def newcomer(
        self, history: Sequence[RawId], features: Mapping[str, Any] | None = None
    ) -> Person:
        """A user whom the data do not have.

        Raises:
            UserError: for a history that is no list of ids.
        """
        if isinstance(history, (str, bytes)) or not isinstance(history, Iterable):
            raise UserError(f"history={history!r}: give a list of item ids, the oldest first")
        schema, length = self.data.schema, self.data.options.history_length
        items = torch.tensor([self.items.row(item) for item in history], dtype=torch.long)
        new = from_values("user", schema.user, features or {}, self.data.encodings)
        if length > 0:
            known = torch.where(items < schema.num_train_items, items + 1, 0)[-length:]
            new["history"] = F.pad(known, (length - len(known), 0))[
                None
            ].int()  # (1, history_length)
        return Person(new, items)

    def _held_out(self, user_id: RawId, start: int, end: int, part: Part) -> tuple[int, int]:
        """Position of a user's first target in a part, and how many follow one another from there."""
        if part not in ("val", "test"):
            raise UserError(f"before must be val or test, got {part!r}")
        position = self.data.tables[f"position/{part}"]
        place = int(torch.searchsorted(position, start))
        if place == len(position) or position[place] >= end:
            raise UserError(f"user_id={user_id} has no held-out interaction in {part}")
        return int(position[place]), int(self.data.tables[f"targets/{part}"][place])

    def _vector(self, person: Person) -> Tensor:
        with torch.no_grad():
            return encode_users(self.model, person.features)  # (1, dim), or (1, num_interests, dim)

    def _best(self, person: Person, k: int, seen: bool | None) -> pl.DataFrame:
        k = _whole_k(k, len(self.item_vectors))
        mask_seen = self.data.mask_seen if seen is None else not seen
        pairs = hidden(
            torch.zeros_like(person.items), person.items, person.targets[None], mask_seen
        )
        score, index = top_k(self._vector(person), self.item_vectors, *pairs, k)
        return self._answer(score[0], index[0]).with_columns(
            seen=pl.Series(torch.isin(index[0], person.items)[score[0] > -torch.inf].numpy())
        )

    def _nearest(self, vector: Tensor, k: int, hidden: Tensor) -> pl.DataFrame:
        k = _whole_k(k, len(self.item_vectors) - len(hidden))
        unit = F.normalize(self.item_vectors, dim=1)
        score, index = top_k(
            F.normalize(vector[None], dim=1), unit, torch.zeros_like(hidden), hidden, k
        )
        return self._answer(score[0], index[0])

    def _answer(self, score: Tensor, index: Tensor) -> pl.DataFrame:
        there = score > -torch.inf  # the rest is hidden
        rows = self.catalogue[index[there].numpy()].drop("cold")
        return rows.select(
            pl.int_range(1, pl.len() + 1).alias("rank"),
            pl.all(),
            score=pl.Series(score[there].numpy()),
        )


def _whole_k(k: int, most: int) -> int:
    """Python's own of a whole number of numpy or torch too."""
    whole = plain(k)
    if isinstance(whole, bool) or not isinstance(whole, int) or not 1 <= whole <= most:
        raise UserError(f"k={k}: give a whole number from 1 to {most:,}, the items that there are")
    return whole


def load(
    path: str | Path,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    trusted: Sequence[str] | None = None,
) -> Retriever:
    """Rebuild a trained model from its checkpoint alone.

    Args:
        path: a checkpoint, or a run folder: then its best one.
        data_dir: raw files; None: as the scripts find them (``TWOTOWER_DATA_DIR``, ``.env``).
        cache_dir: prepared data; the same.
        trusted: own packages that it may name, ``["mylab."]``; None: ``TWOTOWER_TRUSTED``.

    Raises:
        UserError: if the checkpoint is none of ours, or the data on disk are not those that it was trained on.
    """
    read_env_file()
    is_folder = isinstance(path, (str, Path)) and Path(path).is_dir()
    file = RunFolder(Path(path)).best if is_folder else path
    checkpoint = load_checkpoint(file, trusted=trusted)
    usual: Any = OmegaConf.load(CONF / "paths.yaml").paths
    paths = {
        "data_dir": str(data_dir or usual.data_dir),
        "cache_dir": str(cache_dir or usual.cache_dir),
    }
    return from_checkpoint(own_config(checkpoint["twotower"], paths), checkpoint)


def from_checkpoint(config: dict[str, Any], checkpoint: dict[str, Any]) -> Retriever:
    """The same from a checkpoint that is already read; random generators stay as they are.

    Args:
        config: the checkpoint's as plain values, with paths as they are to be.
        checkpoint: see :func:`twotower.run.checkpoint.checkpoints.load_checkpoint`.
    """
    with isolate_rng():
        data, task = rebuild(config, checkpoint)
    return Retriever(data, task.model, checkpoint["twotower"])
