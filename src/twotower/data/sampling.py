"""Samplers of negatives: one class per way of drawing, one YAML in ``conf/negatives``."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from twotower.data.batches.train_pairs import TrainPairs
from twotower.data.batches.vectors import Vectors
from twotower.errors import UserError, check_number
from twotower.types import Negatives

# of a user who knows a tenth of the corpus, one draw in 100,000 is still a positive after four
REDRAWS = 4


def seed(number: int, device: torch.device) -> None:
    """Seed the generators of the host and of ``device``.

    ``torch.manual_seed`` takes a millisecond: it keeps the call, with a stack trace, for each
    device that is not in use.
    """
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Context after which the generators of the host and of ``device`` are as before."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type):
        yield


class Positives(NamedTuple):
    """The positives to draw negatives for.

    All processes draw for the whole batch, from one seed, and each keeps its own rows.

    Attributes:
        item: ``(global_batch,)`` the positives of all processes.
        user: ``(global_batch,)`` their users.
        pairs: the training interactions, with counts per item and a test for membership.
        rank: of this process.
        world_size: number of processes.
        shown: ``(global_batch, width)`` items that were shown beside each and not chosen, -1 pads;
            None if the data do not tell.
        vectors: of the model in training, for samplers that search with it; None without one.
    """

    item: Tensor
    user: Tensor
    pairs: TrainPairs
    rank: int = 0
    world_size: int = 1
    shown: Tensor | None = None
    vectors: Vectors | None = None

    @property
    def num_items(self) -> int:
        """Number of items of the training part, from which negatives are drawn."""
        return self.pairs.num_items

    def own(self, rows: Tensor) -> Tensor:
        """The rows of this process."""
        return rows[self.rank :: self.world_size]


class Sampler(Protocol):
    """Draws negatives. One class, one ``conf/negatives``."""

    def __call__(self, positives: Positives) -> Negatives:
        """Draw for a training step."""
        ...


class Uniform:
    """Each positive draws its own negatives uniformly from the other items (DAT, section 2.2).

    Args:
        num: negatives per positive (the paper's ``S``).
        exclude_positives: draw again what the user has interacted with in training. ``log_q``
            stays that of the plain draw.
    """

    def __init__(self, num: int, exclude_positives: bool) -> None:
        check_number("negatives.num", num, 1)
        self.num = num
        self.exclude_positives = exclude_positives

    def __call__(self, positives: Positives) -> Negatives:
        """``(batch, num)`` negatives, none equal to its positive."""
        positive, others = positives.own(positives.item), max(1, positives.num_items - 1)

        def draw() -> Tensor:
            item = positives.own(
                torch.randint(others, (len(positives.item), self.num), device=positive.device)
            )
            item += item >= positive[:, None]  # steps over the positive
            return item.clamp_max(positives.num_items - 1)

        item = _without_positives(draw, positives) if self.exclude_positives else draw()
        return Negatives(item, _constant(positive, -math.log(others)), self.num)


class Popularity:
    """Items drawn in proportion to ``training count ** power`` (0.75 in Mikolov et al. 2013).

    Args:
        num: negatives, per positive or per batch.
        power: 1 draws as the data do, 0 uniformly.
        shared: one draw for the whole batch, not one per positive.
        exclude_positives: leave out what the user has interacted with in training, by drawing
            again or, if shared, by a mask.
    """

    def __init__(self, num: int, power: float, shared: bool, exclude_positives: bool) -> None:
        check_number("negatives.num", num, 1)
        check_number("negatives.power", power, 0, 10)
        self.num = num
        self.power = power
        self.shared = shared
        self.exclude_positives = exclude_positives

    def __call__(self, positives: Positives) -> Negatives:
        """``(num,)`` shared negatives, or ``(batch, num)`` of each positive's own."""
        cumulative, log_q = positives.pairs.distribution(self.power)
        shape = (self.num,) if self.shared else (len(positives.item), self.num)

        def draw() -> Tensor:
            point = (
                torch.rand(shape, device=cumulative.device, dtype=cumulative.dtype) * cumulative[-1]
            )
            point = point if self.shared else positives.own(point)
            return torch.searchsorted(cumulative, point, right=True).clamp_max(len(cumulative) - 1)

        item = (
            _without_positives(draw, positives)
            if self.exclude_positives and not self.shared
            else draw()
        )
        return Negatives(item, log_q, self.num, self.exclude_positives)


class SharedUniform:
    """The whole batch shares items drawn uniformly, with replacement, from the training items.

    Args:
        num: negatives per batch.
        exclude_positives: mask each user's training positives.
    """

    def __init__(self, num: int, exclude_positives: bool) -> None:
        check_number("negatives.num", num, 1)
        self.num = num
        self.exclude_positives = exclude_positives

    def __call__(self, positives: Positives) -> Negatives:
        """``(num,)`` shared negatives."""
        item = torch.randint(positives.num_items, (self.num,), device=positives.item.device)
        return Negatives(
            item, _constant(item, -math.log(positives.num_items)), self.num, self.exclude_positives
        )


class InBatch:
    """The positives of the batch's other rows (Yi et al., RecSys 2019).

    An item is drawn in proportion to its training count.

    Args:
        exclude_positives: mask each user's training positives.
    """

    def __init__(self, exclude_positives: bool) -> None:
        self.exclude_positives = exclude_positives

    def __call__(self, positives: Positives) -> Negatives:
        """``(batch,)`` shared negatives; losses count a row's own positive only as its positive."""
        log_q = positives.pairs.distribution(1.0).log_q
        return Negatives(
            positives.own(positives.item),
            log_q,
            len(positives.item),
            self.exclude_positives,
            in_batch=True,
        )


class Corpus:
    """Every training item is a negative, once: the full softmax, for small corpora.

    Args:
        exclude_positives: mask each user's training positives.
    """

    def __init__(self, exclude_positives: bool) -> None:
        self.exclude_positives = exclude_positives

    def __call__(self, positives: Positives) -> Negatives:
        """``(num_items,)`` shared negatives."""
        item = torch.arange(positives.num_items, device=positives.item.device)
        return Negatives(item, _constant(item, 0.0), len(item), self.exclude_positives)


class Mixed:
    """Two samplers together, such as in-batch and uniform (Yang et al., WWW 2020).

    An item's probability is that of the mixture, ``(n_1 q_1 + n_2 q_2) / (n_1 + n_2)`` for ``n``
    draws from each.

    Args:
        first: a sampler.
        second: another; both draw shared negatives, or both each positive's own.
    """

    def __init__(
        self, first: Callable[[Positives], Negatives], second: Callable[[Positives], Negatives]
    ) -> None:
        self.first = first
        self.second = second

    def __call__(self, positives: Positives) -> Negatives:
        """The negatives of both, one after the other.

        Raises:
            UserError: if one shares its negatives and the other does not.
        """
        first, second = self.first(positives), self.second(positives)
        if first.item.dim() != second.item.dim():
            raise UserError(
                "negatives.first and negatives.second must both be shared by the batch, or neither"
            )
        in_batch, num = first.in_batch or second.in_batch, first.num + second.num
        parts = [
            part.item if part.in_batch or not in_batch else positives.own(part.item)
            for part in (first, second)
        ]
        share = first.num / num
        log_q = torch.logaddexp(first.log_q + math.log(share), second.log_q + math.log1p(-share))
        return Negatives(
            torch.cat(parts, -1),
            log_q,
            num,
            first.exclude_positives or second.exclude_positives,
            in_batch,
            _weights(first, second),
        )


def negative_rows(
    drawn: Negatives, row: Tensor, distinct: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """How a batch refers to its negatives, whose rows among the ``distinct`` items are ``row``.

    Returns:
        ``(batch, num)`` rows of each positive's own negatives, or None; else ``(num_distinct,)``
        number of draws of each item that the batch shares.
    """
    if drawn.item.dim() == 2:
        return row.view_as(drawn.item), None
    return None, torch.zeros_like(distinct).index_add_(0, row, torch.ones_like(row))


def log_q_of(drawn: Negatives, item: Tensor) -> Tensor:
    """``(num,)`` log sampling probability of training items ``(num,)``."""
    is_constant = drawn.log_q.dim() == 0
    return drawn.log_q.expand(len(item)) if is_constant else drawn.log_q[item]


def _without_positives(draw: Callable[[], Tensor], positives: Positives) -> Tensor:
    """``(batch, num)`` draws; the user's training positives are drawn again ``REDRAWS`` times.

    A remaining positive is replaced by the row's own positive, which every loss masks. No step
    waits for the device.
    """
    item, user = draw(), positives.own(positives.user)[:, None]
    known = positives.pairs.of(user)
    for _ in range(REDRAWS):
        item = torch.where(known.contain(user, item), draw(), item)
    return torch.where(known.contain(user, item), positives.own(positives.item)[:, None], item)


def _weights(first: Negatives, second: Negatives) -> Tensor | None:
    """``(num,)`` of the columns of both, None if all weigh 1."""
    if first.weight is None and second.weight is None:
        return None
    ones = (part.item.new_ones(part.num, dtype=torch.float) for part in (first, second))
    both = zip((first, second), ones, strict=True)
    return torch.cat([one if part.weight is None else part.weight for part, one in both])


def _constant(like: Tensor, value: float) -> Tensor:
    return torch.full((), value, device=like.device)
