"""Embedding tables, with a policy for ids that have no trained row, and lookups in them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.distributed.fetching import Request, fetch
from twotower.distributed.sharding import SHARDING, draw, mean_row, new_shard, shard_of
from twotower.errors import UserError, check_choice, check_number
from twotower.layers.batched import is_batched
from twotower.types import HASHES

COLD_IDS = ("mean", "zero", "trained")


class EmbeddingTable(nn.Module):
    """Rows for vocabulary indices; index 0 is for missing values and for ids unseen in training.

    Args:
        num_values: vocabulary size with index 0.
        dim: width of a row.
        cold_ids: what index 0 returns: the ``mean`` of all other rows, ``zero``, or its own
            ``trained`` row, which starts at zero and stays there if index 0 never occurs in
            training.
        sharding: see :func:`table`.
    """

    def __init__(self, num_values: int, dim: int, cold_ids: str, sharding: str = "none") -> None:
        super().__init__()
        self.cold_ids = cold_ids
        self.weight = table(num_values, dim, sharding)
        if cold_ids == "trained":
            self._set_cold_row(self.weight.new_zeros(dim))

    def forward(self, index: Tensor) -> Tensor:
        """``(batch,)`` indices to ``(batch, dim)`` rows."""
        rows = lookup(*fetch(index, self.weight))  # (batch, dim)
        if self.cold_ids == "trained":
            return rows
        if self.cold_ids == "zero":
            return rows * (index > 0)[:, None]
        if self.training:  # ids in training all have rows: the mean is not needed
            return rows
        # All processes must take part in the mean of a sharded table, even without a cold id.
        if shard_of(self.weight) is None and not (index == 0).any():
            return rows
        return torch.where((index == 0)[:, None], mean_row(self.weight), rows)

    def requests(self, index: Tensor) -> list[Request]:
        """What a lookup of ``(batch,)`` ids needs."""
        return [Request(self.weight, index)]

    def fix_cold_row(self) -> None:
        """Write what index 0 returns into its row, for export: then a plain lookup suffices."""
        if self.cold_ids == "mean":
            self._set_cold_row(mean_row(self.weight))
        elif self.cold_ids == "zero":
            self._set_cold_row(self.weight.new_zeros(self.weight.shape[1]))
        self.cold_ids = "trained"

    @torch.no_grad()
    def _set_cold_row(self, row: Tensor) -> None:
        shard = shard_of(self.weight)
        if shard is None or shard.rank == 0:  # process 0 holds row 0
            self.weight[0] = row


def table(num_values: int, dim: int, sharding: str = "none") -> nn.Parameter:
    """An embedding table with random rows of expected length 1, marked for row-sparse optimizers.

    Args:
        num_values: rows.
        dim: width of a row.
        sharding: with several processes: ``none``, each holds the whole table, or ``row`` or
            ``torchrec``, each holds a share of its rows. Then look rows up through
            :func:`twotower.distributed.fetching.fetch`.
    """
    check_choice("model.sharding", sharding, SHARDING)
    shard = new_shard(num_values, sharding)
    weight = nn.Parameter(torch.empty(shard.num_own if shard else num_values, dim))
    weight.is_table, weight.shard = True, shard  # type: ignore[attr-defined]
    draw(weight, std=dim**-0.5)
    return weight


def lookup(index: Tensor, weight: Tensor) -> Tensor:
    """``(...)`` indices to ``(..., dim)`` rows; sparse gradient if the optimizer wants it."""
    return F.embedding(index, weight, sparse=getattr(weight, "row_sparse", False))


def mean_lookup(index: Tensor, weight: Tensor) -> Tensor:
    """``(batch, width)`` indices, 0 is padding, to ``(batch, dim)`` means; zeros if all are."""
    if torch.compiler.is_compiling() or is_batched(weight):
        # The mean is written out: embedding_bag becomes a loop, over the batch in ONNX and over
        # the models under vmap.
        known = (index > 0).to(weight.dtype)  # (batch, width)
        total = (F.embedding(index, weight) * known[:, :, None]).sum(1)  # (batch, dim)
        return total / known.sum(1, keepdim=True).clamp_min(1)
    return F.embedding_bag(
        index, weight, mode="mean", padding_idx=0, sparse=getattr(weight, "row_sparse", False)
    )


def check_cold_ids(cold_ids: str, id_dropout: float) -> None:
    """Refuse pairs of settings that leave the cold row untrained or unused.

    Raises:
        UserError: naming the setting and how to mend it.
    """
    check_choice("model.cold_ids", cold_ids, COLD_IDS)
    check_number("model.id_dropout", id_dropout, 0, 0.99)
    if cold_ids == "trained" and id_dropout == 0:
        raise UserError(
            "model.cold_ids=trained learns the cold row from dropped ids: set model.id_dropout=0.1"
        )
    if cold_ids == "mean" and id_dropout > 0:
        raise UserError(
            "model.id_dropout needs a row for dropped ids: set model.cold_ids=trained or zero"
        )


def hide_ids(features: dict[str, Tensor], name: str, share: float) -> dict[str, Tensor]:
    """Id dropout: replace a random ``share`` of the ids, hashed ones too, by the cold index 0.

    Source: Volkovs et al., "DropoutNet", NeurIPS 2017.
    """
    if share == 0:
        return features
    kept = torch.rand(features[name].shape, device=features[name].device) >= share
    hidden, hashed = {name: features[name] * kept}, HASHES[name]
    if hashed in features:
        hidden[hashed] = features[hashed] * kept[:, None]
    return {**features, **hidden}
