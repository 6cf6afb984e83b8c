"""Named tuples that cross module borders, and protocols of the parts that people add."""

# Annotations stay text: modules that only check settings import this one without torch.
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn
    from torch.optim import Optimizer

Features: TypeAlias = "dict[str, Tensor]"  # by name, each (batch, ...)

HIDDEN_RANK = 2**31 - 1  # rank of a target that is masked as seen: worse than every other rank

# the features of ids, and those of hashed ids, which a tower reads in place of them
HASHES = {"user_id": "user_hash", "item_id": "item_hash"}

FeatureKind = Literal["categorical", "multi", "numeric", "vector", "history", "event"]


class Feature(NamedTuple):
    """One input of a tower.

    Attributes:
        name: key in ``Batch.user`` or ``Batch.item``.
        kind: ``categorical`` ``(batch,)`` and ``multi`` and ``history`` ``(batch, width)`` hold
            vocabulary indices, where 0 means unknown or padding, and so does ``event``, one for
            each item of the history; ``numeric`` ``(batch,)`` and ``vector`` ``(batch,
            num_values)`` hold standardised floats, where 0 is the mean.
        num_values: vocabulary size with index 0; of ``vector`` its width; 0 for ``numeric``.
    """

    name: str
    kind: FeatureKind
    num_values: int


class Schema(NamedTuple):
    """Sizes that a model needs. ``user_id`` and ``item_id`` are always among the features.

    Attributes:
        user: features of the user tower.
        item: features of the item tower.
        num_items: corpus size; items ``0 … num_train_items - 1`` are in training, others are cold.
        num_train_items: items with a trained id row; item ``i`` has ``item_id`` feature ``i + 1``,
            cold items 0.
        num_categories: categories are ``0 … num_categories - 1``; -1 is missing.
        category_counts: training interactions of each category.
        num_behaviours: behaviours are ``0 … num_behaviours - 1``; 0 for data with one behaviour.
        context: names of ``user`` features that belong to an interaction, not to its user.
    """

    user: tuple[Feature, ...]
    item: tuple[Feature, ...]
    num_items: int
    num_train_items: int
    num_categories: int
    category_counts: tuple[int, ...] = ()
    num_behaviours: int = 0
    context: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Containers of plain values, for checkpoints and JSON."""
        plain = self._asdict()
        for side in ("user", "item"):
            plain[side] = [list(feature) for feature in plain[side]]
        plain["category_counts"] = list(self.category_counts)
        plain["context"] = list(self.context)
        for name in ("num_behaviours", "context"):
            if not plain[name]:
                # Keeps the fingerprints of data that were prepared before this field existed.
                del plain[name]
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Schema:
        """The inverse of :meth:`plain`."""
        fields = {**plain, "category_counts": tuple(plain["category_counts"])}
        fields["context"] = tuple(plain.get("context", ()))
        for side in ("user", "item"):
            fields[side] = tuple(Feature(*feature) for feature in plain[side])
        return cls(**fields)

    def num_values(self, name: str) -> int:
        """Vocabulary size of the feature called ``name``."""
        return next(feature.num_values for feature in self.user + self.item if feature.name == name)


class Interactions(NamedTuple):
    """Training interactions, for models that are fitted in closed form.

    Attributes:
        user: ``(num_interactions,)`` ``user_id`` features.
        item: ``(num_interactions,)`` ``item_id`` features.
    """

    user: Tensor
    item: Tensor


class TrainIndex(NamedTuple):
    """One training step of all processes, as a training loader yields it.

    Attributes:
        position: ``(global_batch,)`` positions of all processes' positives among the interactions.
            Process ``rank`` trains on ``position[rank::world_size]``.
        seed: of everything random in the step (negatives, dropout); equal in all processes.
        rank: of this process.
        world_size: number of processes.
        num_rows: that a process's loss is a mean over, also in a smaller batch; None: its own.
    """

    position: Tensor
    seed: int
    rank: int = 0
    world_size: int = 1
    num_rows: int | None = None


class EvalIndex(NamedTuple):
    """One evaluation step, as an evaluation loader yields it.

    Attributes:
        position: ``(batch,)`` positions of the users' first targets; the other targets follow.
        num_targets: ``(batch,)``, at least 1.
    """

    position: Tensor
    num_targets: Tensor


class Batch(NamedTuple):
    """One training step on the device, with each distinct item once.

    It has ``T`` pairs to score: the positives, and each positive's user with its negatives.

    Attributes:
        user: features of the positives' users, each ``(batch, ...)``, or the history's Sequences.
        item: features of the distinct items, each ``(num_distinct, ...)``.
        item_index: ``(num_distinct,)`` corpus index of each distinct item, ascending. Where shapes
            are fixed, rows with the corpus size as index are padding: never in ``positive`` or
            ``negative``, never drawn, without category.
        category: ``(num_distinct,)`` primary category, -1 where missing.
        positive: ``(batch,)`` row of each positive in ``item``.
        negative: ``(batch, num_negatives)`` rows of each positive's own negatives, or None if
            negatives are shared.
        num_draws: ``(num_distinct,)`` how often each item was drawn as a shared negative, or None
            if not shared.
        log_q: ``(num_distinct,)`` log sampling probability of each item.
        num_pairs: ``T`` of the paper's Eq. 2-4.
        behaviour: ``(batch,)`` index of the positive's behaviour (click, purchase, …), or None for
            data with one behaviour.
        excluded: ``(batch, num_distinct)`` True where a shared negative is another training
            positive of the user, or None where those count as negatives.
        in_batch: whether ``num_draws`` counts the positives themselves, as in-batch negatives.
        share: this process's number of rows over ``TrainIndex.num_rows``, or the mean of all. A
            loss that is a mean over rows is multiplied by it: all rows then weigh the same.
        weight: ``(batch,)`` by which each positive's part of a loss is multiplied, 1 on average
            over the training interactions, or None: all weigh the same.
        negative_weight: ``(num_negatives,)`` by which the part of each column of ``negative`` is
            multiplied, or None: all weigh the same.
    """

    user: Features
    item: Features
    item_index: Tensor
    category: Tensor
    positive: Tensor
    negative: Tensor | None
    num_draws: Tensor | None
    log_q: Tensor
    num_pairs: int
    behaviour: Tensor | None = None
    excluded: Tensor | None = None
    in_batch: bool = False
    share: float = 1.0
    weight: Tensor | None = None
    negative_weight: Tensor | None = None


class EvalBatch(NamedTuple):
    """Users to rank the corpus for.

    Attributes:
        user: features, each ``(batch, ...)``.
        target: ``(batch, num_targets)`` distinct held-out corpus indices; -1 pads, never first.
        seen_row: ``(num_seen,)`` row in the batch of each masked (user, item) pair, ascending.
        seen_item: ``(num_seen,)`` corpus index of each of these pairs.
        group: ``(batch, num_targets, num_groups)`` True where the target counts in the group's
            metrics; never for padding.
        user_index: ``(batch,)`` index of each user among the users of the data.
    """

    user: Features
    target: Tensor
    seen_row: Tensor
    seen_item: Tensor
    group: Tensor
    user_index: Tensor


class Negatives(NamedTuple):
    """Drawn negatives, as training item indices.

    Attributes:
        item: ``(batch, num)`` one row of negatives per positive, or ``(num,)`` shared by the whole
            batch. With several processes, own negatives are those of this process's rows; shared
            ones are the same in all processes, except with ``in_batch``: then a part in each.
        log_q: log sampling probability of an item: a scalar, or ``(num_train_items,)``.
        num: negatives that each positive is compared with, over all processes. Draws are counted,
            so the positive itself may be one.
        exclude_positives: for shared negatives, whether losses mask each user's own training
            positives.
        in_batch: whether the batch's positives are among the negatives, once each.
        weight: ``(num,)`` of each column of own negatives in the loss, or None: all weigh 1.
    """

    item: Tensor
    log_q: Tensor
    num: int
    exclude_positives: bool = False
    in_batch: bool = False
    weight: Tensor | None = None


class Towers(NamedTuple):
    """Model output for a batch.

    Attributes:
        user: ``(batch, dim)``.
        item: ``(num_distinct, dim)``.
        user_augmented: ``(batch, dim)`` DAT's ``a_u``, or None.
        item_augmented: ``(num_distinct, dim)`` DAT's ``a_v``, or None.
        item_by_objective: for a model with several objectives, the item vectors of each, in order;
            ``item`` is the one used for retrieval. Empty otherwise.
    """

    user: Tensor
    item: Tensor
    user_augmented: Tensor | None = None
    item_augmented: Tensor | None = None
    item_by_objective: tuple[Tensor, ...] = ()


class LossOutput(NamedTuple):
    """A loss and its parts.

    Attributes:
        total: scalar to minimise.
        terms: unweighted parts by name, for the log.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Model(Protocol):
    """A two-tower model: an ``nn.Module`` with inner products of two vectors as scores."""

    def encode_user(self, features: Features) -> Tensor:
        """``(batch, dim)``, or ``(batch, num_interests, dim)`` for several vectors per user."""

    def encode_item(self, features: Features) -> Tensor:
        """``(batch, dim)``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Trained parameters; none for a model that is fitted in closed form."""

    def modules(self) -> Iterator[nn.Module]:
        """All layers."""

    def train(self, mode: bool) -> Any:
        """Switch dropout on or off."""

    def __call__(self, batch: Batch) -> Towers:
        """Both towers' vectors of a training batch."""


class Loss(Protocol):
    """A loss over tower outputs and a batch; it does not see the model."""

    def __call__(self, towers: Towers, batch: Batch) -> LossOutput:
        """The loss of a batch, and its terms for the log."""


class MakeOptimizer(Protocol):
    """An optimizer without its parameters, as ``_partial_: true`` builds it."""

    def __call__(self, params: Iterable[nn.Parameter]) -> Optimizer:
        """An optimizer of these parameters."""
