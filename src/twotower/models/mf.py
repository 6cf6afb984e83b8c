"""Matrix factorisation, the usual baseline of published tables with ``loss/task=bpr``."""

import torch
from torch import Tensor, nn

from twotower.distributed.fetching import fetched_together
from twotower.distributed.sharding import draw
from twotower.errors import check_choice, check_number
from twotower.layers.embedding_table import EmbeddingTable
from twotower.types import Batch, Schema, Towers


class MF(nn.Module):
    """``s(u, v) = <e_u, e_v> + b_v`` from ids alone (Rendle et al., UAI 2009).

    The bias is one more dimension of the item, in which every user has a 1.

    Args:
        schema: sizes of the data.
        dim: factors.
        item_bias: learn ``b_v``.
        init_std: of the initial factors. With small ones all scores start near 0, which helps BPR.
        cold_ids: vector of an id without a trained row: ``mean`` or ``zero``.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        item_bias: bool,
        init_std: float,
        cold_ids: str,
        sharding: str = "none",
    ) -> None:
        super().__init__()
        check_number("model.dim", dim, 1)
        check_number("model.init_std", init_std, 0)
        check_choice("model.cold_ids", cold_ids, ("mean", "zero"))
        self.item_bias = item_bias
        self.user_factors = EmbeddingTable(schema.num_values("user_id"), dim, cold_ids, sharding)
        self.item_factors = EmbeddingTable(
            schema.num_values("item_id"), dim + item_bias, cold_ids, sharding
        )
        for table in (self.user_factors, self.item_factors):
            draw(table.weight, std=init_std)
        if item_bias:
            nn.init.zeros_(self.item_factors.weight[:, -1])

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, dim)`` factors; with ``item_bias`` a 1 follows."""
        user = self.user_factors(features["user_id"])
        return torch.cat([user, torch.ones_like(user[:, :1])], dim=1) if self.item_bias else user

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, dim)`` factors; with ``item_bias`` the bias follows."""
        item: Tensor = self.item_factors(features["item_id"])
        return item

    def forward(self, batch: Batch) -> Towers:
        """Tower outputs for the batch's users and distinct items."""
        requests = self.user_factors.requests(batch.user["user_id"])
        requests += self.item_factors.requests(batch.item["item_id"])
        with fetched_together(requests):
            return Towers(self.encode_user(batch.user), self.encode_item(batch.item))
