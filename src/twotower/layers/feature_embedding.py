"""Embedding of all features of one side, concatenated to the input of a tower."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from twotower.distributed.fetching import Request, fetch, fetched_together
from twotower.errors import UserError, check_number
from twotower.layers.embedding_table import EmbeddingTable, lookup, mean_lookup, table
from twotower.layers.history import Sequences
from twotower.types import HASHES, Feature, Model


class MultiEmbedding(nn.Module):
    """Mean of the embeddings of a multi-valued feature; zeros for an empty one."""

    def __init__(self, num_values: int, dim: int, sharding: str = "none") -> None:
        super().__init__()
        self.weight = table(num_values, dim, sharding)

    def forward(self, index: Tensor) -> Tensor:
        """``(batch, width)`` indices, 0 is padding, to ``(batch, dim)``."""
        return mean_lookup(*fetch(index, self.weight, padded=True))

    def requests(self, index: Tensor) -> list[Request]:
        """What a lookup of ``(batch, width)`` ids needs."""
        return [Request(self.weight, index, padded=True)]


class HistoryEmbedding(nn.Module):
    """A history encoder over a table of item embeddings.

    Args:
        num_values: vocabulary size of ``item_id``.
        dim: width of a row.
        encoder: see ``layers/history``.
        sharding: see :func:`~twotower.layers.embedding_table.table`.
        events: features of the events, whose embeddings are added to those of the items. They
            begin with zeros.
    """

    def __init__(
        self,
        num_values: int,
        dim: int,
        encoder: nn.Module,
        sharding: str = "none",
        events: Sequence[Feature] = (),
    ) -> None:
        super().__init__()
        self.table: MultiEmbedding | EmbeddingTable = MultiEmbedding(num_values, dim, sharding)
        self.encoder = encoder
        self.event_names = [event.name for event in events]
        self.events = nn.ParameterList(torch.zeros(event.num_values, dim) for event in events)
        for weight in self.events:
            weight.is_table, weight.shard = True, None  # for row-sparse optimizers

    def forward(self, history: Tensor | Sequences, *more: Tensor) -> Tensor:
        """``(batch, length)`` ``item_id`` indices, 0 is padding, to ``(batch, dim)``.

        ``more`` is each feature of the events, ``(num_rows, length)`` or ``(num_rows, length,
        width)`` of which the mean counts, and for an encoder that reads times those of the items,
        ``(num_rows, length)`` seconds.

        Raises:
            UserError: for sequences and an encoder that has no ``places``.
        """
        events, time = more[: len(self.events)], more[len(self.events) :]
        items = history.items if isinstance(history, Sequences) else history
        index, rows = fetch(items, self.table.weight, padded=True)
        if self.events:
            index, rows = self._with_events(index, rows, events)
        if not isinstance(history, Sequences):
            encoded: Tensor = self.encoder(index, rows, *time)
            return encoded
        if not hasattr(self.encoder, "places"):
            raise UserError(
                "data.positives=sequences needs an encoder that reads each place of a history: "
                f"add places(index, weight) to {type(self.encoder).__name__}, or set "
                "model/history=transformer"
            )
        read: Any = self.encoder.places
        places = read(index, rows, *time)
        vectors: Tensor = places.flatten(0, 1)  # (num_sequences * length, dim)
        return vectors.index_select(0, history.row * places.shape[1] + history.place)

    def requests(self, history: Tensor | Sequences) -> list[Request]:
        """What a lookup of a history needs."""
        items = history.items if isinstance(history, Sequences) else history
        return [Request(self.table.weight, items, padded=True)]

    def _with_events(
        self, index: Tensor, rows: Tensor, events: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A row for each event instead of each item, and the places of the history in them."""
        vectors = lookup(index, rows)  # (num_rows, length, dim)
        for event, weight in zip(events, self.events, strict=True):
            if event.dim() == 2:
                vectors = vectors + lookup(event, weight)
            else:  # several labels each
                mean = mean_lookup(event.flatten(0, 1), weight)  # (num_rows * length, dim)
                vectors = vectors + mean.view_as(vectors)
        number = torch.arange(1, index.numel() + 1, device=index.device).view_as(index)
        padding = vectors.new_zeros(1, vectors.shape[2])
        return number * (index > 0), torch.cat([padding, vectors.flatten(0, 1)])


class NumericEmbedding(nn.Module):
    """Standardised numbers, or a vector of them, each with a learned direction, and an offset."""

    def __init__(self, dim: int, width: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)

    def forward(self, value: Tensor) -> Tensor:
        """``(batch,)`` or ``(batch, width)`` float32 data to ``(batch, dim)``, typed as weights."""
        numbers = value if value.dim() == 2 else value[:, None]
        embedded: Tensor = self.linear(numbers.to(self.linear.weight.dtype))
        return embedded


class FeatureEmbedding(nn.Module):
    """Embeds each feature with its own table and concatenates them in the schema's order.

    Args:
        features: the side's features (``schema.user`` or ``schema.item``).
        dim: width of every feature.
        use: names to take, in any order; None takes all, without ids that are hashed as well.
        cold_ids: policy for ``user_id`` and ``item_id`` without a trained row, see
            :class:`EmbeddingTable`.
        history: encoder of a ``history`` feature, see ``layers/history``; None for a side
            without one.
        id_extra_dim: added to the width of ``user_id`` and ``item_id``.
        sharding: of all tables, see :func:`~twotower.layers.embedding_table.table`.

    Raises:
        UserError: if ``use`` is empty or names a feature that the data do not have.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        dim: int,
        use: list[str] | None,
        cold_ids: str,
        history: nn.Module | None = None,
        id_extra_dim: int = 0,
        sharding: str = "none",
    ) -> None:
        super().__init__()
        check_number("model.embedding_dim", dim, 1)
        check_number("model.id_extra_dim", id_extra_dim, 0)
        events = [feature for feature in features if feature.kind == "event"]
        names = [feature.name for feature in features if feature.kind != "event"]
        _check_use(names, use)
        if use is None:
            use = [name for name in names if HASHES.get(name) not in names]
        self.names = [name for name in names if name in use]
        used = [feature for feature in features if feature.name in self.names]
        widths = [dim + id_extra_dim * (feature.name in HASHES) for feature in used]
        self.embeddings = nn.ModuleList(
            self._build(feature, width, cold_ids, history, sharding, events)
            for feature, width in zip(used, widths, strict=True)
        )
        self.output_dim = sum(widths)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Feature tensors, each ``(batch, ...)``, to ``(batch, output_dim)``.

        Raises:
            UserError: without times, for an encoder that reads them.
        """
        if torch.compiler.is_compiling():
            return self._embed(features)
        with fetched_together(self.requests(features)):
            return self._embed(features)

    def _embed(self, features: dict[str, Tensor]) -> Tensor:
        parts = []
        for name, embed in zip(self.names, self.embeddings, strict=True):
            inputs = [features[name]]
            if isinstance(embed, HistoryEmbedding):
                inputs += [features[event] for event in embed.event_names]
            if isinstance(embed, HistoryEmbedding) and reads_times(embed.encoder):
                if "history_time" not in features:
                    raise UserError("model.history.times=true needs data.history_times=true")
                inputs.append(features["history_time"])
            parts.append(embed(*inputs))
        return torch.cat(parts, dim=1)

    def requests(self, features: dict[str, Tensor]) -> list[Request]:
        """What the lookups of these features need, see :func:`fetched_together`."""
        requests = []
        for name, embed in zip(self.names, self.embeddings, strict=True):
            if isinstance(embed, (EmbeddingTable, MultiEmbedding, HistoryEmbedding)):
                requests += embed.requests(features[name])
        return requests

    def share_item_table(self, item: "FeatureEmbedding") -> None:
        """Embed the history with the item side's table of ``item_id``, as in SASRec.

        Raises:
            UserError: if one of the two features is not used.
        """
        if "history" not in self.names or "item_id" not in item.names:
            raise UserError(
                "model.share_item_table=true needs history in model.user_features, item_id in "
                "model.item_features and data.history_length above 0"
            )
        history = self.embeddings[self.names.index("history")]
        history.table = item.embeddings[item.names.index("item_id")]

    @staticmethod
    def _build(
        feature: Feature,
        dim: int,
        cold_ids: str,
        history: nn.Module | None,
        sharding: str,
        events: Sequence[Feature],
    ) -> nn.Module:
        if feature.kind == "numeric":
            return NumericEmbedding(dim)
        if feature.kind == "vector":
            return NumericEmbedding(dim, feature.num_values)
        if feature.kind == "multi":
            return MultiEmbedding(feature.num_values, dim, sharding)
        if feature.kind == "history":
            assert history is not None
            return HistoryEmbedding(feature.num_values, dim, history, sharding, events)
        policy = cold_ids if feature.name in HASHES else "trained"
        return EmbeddingTable(feature.num_values, dim, policy, sharding)


def reads_times(model: nn.Module | Model) -> bool:
    """Does a model, or an encoder, need the times of a history: the feature ``history_time``?"""
    return any(getattr(module, "reads_times", False) for module in model.modules())


def _check_use(names: list[str], use: list[str] | None) -> None:
    unknown = [name for name in use or [] if name not in names]
    if unknown == ["history"]:
        raise UserError(
            "model.user_features: the data have no history: set data.history_length above 0"
        )
    if unknown or (use is not None and not use):
        problem = f"{unknown} not in the data" if unknown else "the list is empty"
        raise UserError(
            f"model.user_features, model.item_features: {problem}; choose from {names}, "
            "or set null for all"
        )
