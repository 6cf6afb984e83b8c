"""MIND: several interests per user by capsule routing (Li et al., Alibaba, CIKM 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.distributed.fetching import Request, fetched_together
from twotower.errors import UserError, check_choice, check_number
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.layers.history.base import Sequences, known_last
from twotower.layers.mlp import Tower
from twotower.layers.precision import at_least_float32
from twotower.types import Batch, Schema, Towers


class MIND(nn.Module):
    """``K`` interest vectors per user; an item's score is its best inner product with one of them.

    **Routing** (section 4.2): with ``c_i = S e_i`` for the history's items, repeat
    ``w = softmax_k(b)``, ``u_k = squash(Σ_i w_ki c_i)``, ``b_ki += <u_k, c_i>``. A user with ``n``
    items has ``max(1, min(K, log2 n))`` interests.
    **Profile** (4.3): each interest passes, with the user's other features, through one shared
    tower.
    **Training** (4.4): label-aware attention weighs the interests by the positive ``e``. The paper
    raises scores to a power before the softmax; ours is ``softmax_k(p <u_k, e>)``, as scores may
    be negative. ``forward`` thus gives each row one vector, so every loss can be used.

    The paper draws the first ``b`` anew for each user; ours are drawn once, for each place of the
    history, so that a user's vectors can be reproduced. ``encode_user`` gives ``(batch, K, dim)``;
    evaluation takes the best interest for each item.

    Args:
        schema: features and sizes of the data.
        embedding_dim: width of user features other than the history.
        hidden_dims: hidden widths of the shared tower.
        dim: width of items, interests and outputs.
        num_interests: ``K``, the largest number of interests.
        num_iterations: routing steps.
        attention_power: ``p``; 0 weighs interests equally, a large one takes only the best.
        length: number of last items that are read; ``data.history_length`` for all.
        normalize: L2-normalise interests and items.
        dropout: share of hidden units dropped in training.
        user_features: names of inputs besides the history.
        cold_ids: vector of an item without a trained row: ``mean`` or ``zero``.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.
    """

    first_logits: Tensor  # (length, num_interests)
    items_needed: Tensor  # (num_interests,)

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int,
        hidden_dims: list[int],
        dim: int,
        num_interests: int,
        num_iterations: int,
        attention_power: float,
        length: int,
        normalize: bool,
        dropout: float,
        user_features: list[str],
        cold_ids: str,
        sharding: str = "none",
    ) -> None:
        super().__init__()
        check_number("model.dim", dim, 1)
        check_number("model.num_interests", num_interests, 1, 1000)
        check_number("model.num_iterations", num_iterations, 1, 1000)
        check_number("model.attention_power", attention_power, 0)
        check_choice("model.cold_ids", cold_ids, ("mean", "zero"))
        if length < 1 or "history" in user_features:
            raise UserError(
                "model=mind needs a history, and always reads it: set data.history_length above 0, "
                "and leave history out of model.user_features"
            )
        self.num_iterations = num_iterations
        self.attention_power = attention_power
        self.normalize = normalize
        item_id = tuple(feature for feature in schema.item if feature.name == "item_id")
        self.item_embedding = FeatureEmbedding(item_id, dim, None, cold_ids, sharding=sharding)
        self.profile = None
        width = dim
        if user_features:
            self.profile = FeatureEmbedding(
                schema.user, embedding_dim, user_features, cold_ids, sharding=sharding
            )
            width += self.profile.output_dim
        self.bilinear = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.register_buffer("first_logits", torch.randn(length, num_interests))
        self.register_buffer("items_needed", items_needed(num_interests), persistent=False)
        self.tower = Tower(width, hidden_dims, dim, "relu", "none", normalize, dropout)

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """User features to ``(batch, num_interests, dim)``; missing interests repeat the first."""
        capsule = self.route(features["history"])  # (batch, num_interests, dim)
        if self.profile:
            profile = self.profile(features)[:, None].expand(-1, capsule.shape[1], -1)
            capsule = torch.cat([capsule, profile], dim=2)
        user: Tensor = self.tower(capsule.flatten(0, 1)).unflatten(0, capsule.shape[:2])
        return user

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """Item ids ``(batch,)`` to ``(batch, dim)``."""
        item = self.item_embedding(features)
        return F.normalize(item, dim=1, eps=1e-6) if self.normalize else item

    def forward(self, batch: Batch) -> Towers:
        """Interests weighted by the positive ``(batch, dim)``, and the distinct items."""
        with fetched_together(self._requests(batch)):
            interest, item = self.encode_user(batch.user), self.encode_item(batch.item)
        num_items = (batch.user["history"] > 0).sum(1).clamp_max(len(self.first_logits))  # (batch,)
        mask = num_items[:, None] >= self.items_needed  # (batch, num_interests)
        score = (interest @ item[batch.positive][:, :, None]).squeeze(2)  # (batch, num_interests)
        weight = (self.attention_power * score).masked_fill(~mask, float("-inf")).softmax(1)
        return Towers((weight[:, :, None] * interest).sum(1), item)

    def _requests(self, batch: Batch) -> list[Request]:
        history = {"item_id": self._last(batch.user["history"])}
        requests = self.item_embedding.requests(history) + self.item_embedding.requests(batch.item)
        return requests + (self.profile.requests(batch.user) if self.profile else [])

    def _last(self, index: Tensor) -> Tensor:
        """The last items that the routing reads, ``(batch, at most length)``.

        Raises:
            UserError: for sequences, as a capsule is of a whole history.
        """
        if isinstance(index, Sequences):
            raise UserError("model=mind reads whole histories: set data.positives=interactions")
        return known_last(index)[:, -len(self.first_logits) :]

    def route(self, index: Tensor) -> Tensor:
        """Histories ``(batch, length)`` to capsules ``(batch, num_interests, dim)``.

        An empty history gives zeros.
        """
        index = self._last(index)
        known = index > 0
        item = self.item_embedding({"item_id": index.flatten()}).unflatten(0, index.shape)
        item = (item * known[..., None]) @ self.bilinear  # (batch, length, dim)
        mask = known.sum(1)[:, None] >= self.items_needed  # (batch, num_interests)
        logits = self.first_logits[-index.shape[1] :]  # (length, num_interests)
        logits = logits.expand(index.shape[0], -1, -1)  # (batch, length, num_interests)
        for step in range(self.num_iterations):
            weight = logits.masked_fill(~mask[:, None], float("-inf")).softmax(2)
            weight = weight * known[..., None]  # (batch, length, num_interests)
            capsule = squash(weight.mT @ item)  # (batch, num_interests, dim)
            if step + 1 < self.num_iterations:
                logits = logits + item @ capsule.mT
        return torch.where(mask[..., None], capsule, capsule[:, :1])


def squash(x: Tensor) -> Tensor:
    """``‖x‖² / (1 + ‖x‖²) x / ‖x‖`` over the last dimension; zero stays zero, its gradient finite.

    The factor of ``x`` is computed in float32 or better, as float16 rounds 1e-9 to zero. It is a
    lower bound rather than a term, as the ONNX export removes the addition of a number that small.
    """
    square = at_least_float32(x).square().sum(-1, keepdim=True)
    return x * (square / (1 + square) / square.clamp_min(1e-9).sqrt()).to(x.dtype)


def items_needed(num_interests: int) -> Tensor:
    """``(num_interests,)`` items of a history with which a user has each interest.

    A user with ``n`` items has the first ``max(1, min(K, log2 n))`` interests: the first one needs
    no item, interest ``k`` needs ``2^k``. They are integers, as log2 would round.
    """
    return torch.tensor([0, *(min(2**count, 1 << 62) for count in range(2, num_interests + 1))])
