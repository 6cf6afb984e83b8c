"""Negatives: which items a positive is compared with. One class per way of drawing, one YAML in ``conf/negatives``."""

import math

import torch
from torch import Tensor

from twotower.types import Negatives, check_number


class Uniform:
    """Each positive draws its own negatives uniformly from the other training items (DAT, section 2.2).

    Args:
        num: negatives per positive (the paper's ``S``).
    """

    def __init__(self, num: int) -> None:
        check_number("negatives.num", num, 1)
        self.num = num

    def __call__(self, positive: Tensor, num_items: int) -> Negatives:
        """``(batch,)`` positives to ``(batch, num)`` negatives, none equal to its positive."""
        item = torch.randint(max(1, num_items - 1), (len(positive), self.num), device=positive.device)
        item += item >= positive[:, None]  # steps over the positive
        return Negatives(item.clamp_max(num_items - 1), _constant(positive, -math.log(max(1, num_items - 1))))


class SharedUniform:
    """The whole batch shares items drawn uniformly, with replacement, from the training items.

    Args:
        num: negatives per batch.
    """

    def __init__(self, num: int) -> None:
        check_number("negatives.num", num, 1)
        self.num = num

    def __call__(self, positive: Tensor, num_items: int) -> Negatives:
        """``(batch,)`` positives to ``(num,)`` shared negatives."""
        item = torch.randint(num_items, (self.num,), device=positive.device)
        return Negatives(item, _constant(positive, -math.log(num_items)))


class Corpus:
    """Every training item is a negative, once: the full softmax. For corpora of up to some ten thousand items."""

    def __call__(self, positive: Tensor, num_items: int) -> Negatives:
        """``(num_items,)`` shared negatives."""
        return Negatives(torch.arange(num_items, device=positive.device), _constant(positive, 0.0))


def _constant(like: Tensor, value: float) -> Tensor:
    return torch.full((), value, device=like.device)
