"""What crosses module borders: named tuples, and protocols of the parts that people add."""

from __future__ import (
    annotations,
)  # so that torch is not imported by modules that only check settings

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn
    from torch.optim import Optimizer

Features: TypeAlias = "dict[str, Tensor]"  # by name, each (batch, ...)

HIDDEN_RANK = 2**31 - 1  # of a target that no list can show: behind every candidate

FeatureKind = Literal["categorical", "multi", "numeric", "history"]


class Feature(NamedTuple):
    """One input of a tower.

    Attributes:
        name: key in ``Batch.user`` or ``Batch.item``.
        kind: ``categorical`` ``(batch,)`` and ``multi`` and ``history`` ``(batch, width)`` hold vocabulary indices, where
            0 means unknown or padding; ``numeric`` ``(batch,)`` holds standardised floats, where 0 is the mean.
        num_values: vocabulary size with index 0; 0 for ``numeric``.
    """

    name: str
    kind: FeatureKind
    num_values: int


class Schema(NamedTuple):
    """Sizes that a model needs. ``user_id`` and ``item_id`` are always among the features.

    Attributes:
        user: features of the user tower.
        item: features of the item tower.
        num_items: corpus size; items ``0 … num_train_items - 1`` were seen in training, the rest are cold.
        num_train_items: items with a trained id row; item ``i`` has ``item_id`` feature ``i + 1``, cold items 0.
        num_categories: categories are ``0 … num_categories - 1``; -1 is missing.
        category_counts: training interactions of each category.
        num_behaviours: behaviours are ``0 … num_behaviours - 1``; 0 where the data know one.
    """

    user: tuple[Feature, ...]
    item: tuple[Feature, ...]
    num_items: int
    num_train_items: int
    num_categories: int
    category_counts: tuple[int, ...] = ()
    num_behaviours: int = 0

    def plain(self) -> dict[str, Any]:
        """Containers of plain values, for checkpoints and JSON."""
        plain = {
            **self._asdict(),
            "user": [list(feature) for feature in self.user],
            "item": [list(feature) for feature in self.item],
            "category_counts": list(self.category_counts),
        }
        if self.num_behaviours == 0:
            del plain[
                "num_behaviours"
            ]  # younger than the fingerprints of prepared data, which this is part of
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Schema:
        """The inverse of :meth:`plain`."""
        sides = {
            side: tuple(Feature(*feature) for feature in plain[side]) for side in ("user", "item")
        }
        return cls(**{**plain, **sides, "category_counts": tuple(plain["category_counts"])})

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
    """What a training loader yields: one step of all processes, and which of them this is.

    Attributes:
        position: ``(global_batch,)`` positions of all processes' positives among the interactions. Process ``rank`` trains on
            every ``world_size``-th of them, starting at its own number.
        seed: everything random in the step (negatives, dropout) follows from it; equal in all processes.
        rank: of this process.
        world_size: number of processes.
    """

    position: Tensor
    seed: int
    rank: int = 0
    world_size: int = 1


class EvalIndex(NamedTuple):
    """What an evaluation loader yields.

    Attributes:
        position: ``(batch,)`` position of each user's first target among the interactions; the others follow it.
        num_targets: ``(batch,)``, at least 1.
    """

    position: Tensor
    num_targets: Tensor


class Batch(NamedTuple):
    """One training step on the device; each distinct item stands once.

    The batch scores ``T`` pairs: every positive, and every positive's user with each of its negatives.

    Attributes:
        user: features of the positives' users, each ``(batch, ...)``.
        item: features of the distinct items, each ``(num_distinct, ...)``.
        item_index: ``(num_distinct,)`` corpus index of each distinct item, ascending. Rows of the corpus size are padding, where
            shapes are fixed: no row of ``positive`` or ``negative`` names them, they were never drawn and have no category.
        category: ``(num_distinct,)`` primary category, -1 where missing.
        positive: ``(batch,)`` row of each positive in ``item``.
        negative: ``(batch, num_negatives)`` rows of each positive's own negatives, or None if negatives are shared.
        num_draws: ``(num_distinct,)`` how often each item was drawn as a shared negative, or None if not shared.
        log_q: ``(num_distinct,)`` log sampling probability of each item.
        num_pairs: ``T`` of the paper's Eq. 2-4.
        behaviour: ``(batch,)`` index of what each user did with the positive (click, purchase, …), or None where the data
            know one behaviour.
        excluded: ``(batch, num_distinct)`` True where a shared negative is one of the user's other training positives, or
            None where those count as negatives.
        in_batch: do ``num_draws`` count the positives themselves, as in-batch negatives?
        share: this process's rows over the mean of all processes. Losses that are means over rows are multiplied by it, so that
            the mean over processes, which is what is trained, is the mean over all rows.
    """

    user: dict[str, Tensor]
    item: dict[str, Tensor]
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


class EvalBatch(NamedTuple):
    """Users to rank the corpus for.

    Attributes:
        user: features, each ``(batch, ...)``.
        target: ``(batch, num_targets)`` corpus indices of distinct held-out items, -1 pads after the first.
        seen_row: ``(num_seen,)`` row in the batch of each (user, item) pair that is hidden as seen, ascending.
        seen_item: ``(num_seen,)`` corpus index of each of these pairs.
        group: ``(batch, num_targets, num_groups)`` True where the target counts in the group's metrics; padding never does.
        user_index: ``(batch,)`` who they are among the data's users.
    """

    user: dict[str, Tensor]
    target: Tensor
    seen_row: Tensor
    seen_item: Tensor
    group: Tensor
    user_index: Tensor


class Negatives(NamedTuple):
    """Drawn negatives, as training item indices.

    Attributes:
        item: ``(batch, num)`` one row of negatives per positive, or ``(num,)`` shared by the whole batch. With several processes
            it is what this one contributes: its own rows of the first kind; of the second kind all, or with ``in_batch`` a part.
        log_q: log sampling probability of an item: a scalar, or ``(num_train_items,)``.
        exclude_positives: shared negatives only: must the losses leave out each user's own training positives?
        in_batch: are the batch's positives themselves among them, once each?
        num: how many each positive meets, of all processes together. Draws count, so the positive itself may be one.
    """

    item: Tensor
    log_q: Tensor
    num: int
    exclude_positives: bool = False
    in_batch: bool = False


class Towers(NamedTuple):
    """Model output for a batch.

    Attributes:
        user: ``(batch, dim)``.
        item: ``(num_distinct, dim)``.
        user_augmented: ``(batch, dim)`` DAT's ``a_u``, or None.
        item_augmented: ``(num_distinct, dim)`` DAT's ``a_v``, or None.
        item_by_objective: the items' vectors for each objective of a model that has several, in their order; ``item`` is the
            one that is retrieved with. Empty otherwise.
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
    """A two-tower model: an ``nn.Module`` whose score of a user and an item is the inner product of two vectors."""

    def encode_user(self, features: Features) -> Tensor:
        """``(batch, dim)``, or ``(batch, num_interests, dim)`` of a model with several vectors of a user."""
        ...

    def encode_item(self, features: Features) -> Tensor:
        """``(batch, dim)``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained; empty for a model that is fitted in closed form."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All layers."""
        ...

    def train(self, mode: bool) -> Any:
        """Switch dropout on or off."""
        ...

    def __call__(self, batch: Batch) -> Towers:
        """Both towers' vectors of a training batch."""
        ...


class Loss(Protocol):
    """What is minimised: sees vectors and the batch, never the model."""

    def __call__(self, towers: Towers, batch: Batch) -> LossOutput:
        """The loss of a batch, and its terms for the log."""
        ...


class MakeOptimizer(Protocol):
    """An optimizer that lacks its parameters, as ``_partial_: true`` builds it."""

    def __call__(self, params: Iterable[nn.Parameter]) -> Optimizer:
        """An optimizer of these parameters."""
        ...


class RunInfo(NamedTuple):
    """What a run's checkpoints tell of it, as plain containers, besides weights and state.

    Attributes:
        choices: option of each config group.
        overrides: of the command line.
        config: what rebuilds the run, plain values; empty where it was not asked for.
        repeats: dotted names of values in it that were interpolations.
        settings: what tells variants apart, by dotted names.
        fingerprint: of the data; empty before they are known.
        schema: of the data.
        val: metrics of the last validation.
    """

    choices: dict[str, Any]
    overrides: list[str]
    config: dict[str, Any] = {}
    repeats: list[str] = []
    settings: dict[str, str | int | float | bool | None] = {}
    fingerprint: str = ""
    schema: dict[str, Any] = {}
    val: dict[str, float] = {}
