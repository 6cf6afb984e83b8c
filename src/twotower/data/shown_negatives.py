"""Negatives that the data give: what was shown and not chosen."""

import torch
import torch.nn.functional as F

from twotower.data.sampling import Positives
from twotower.errors import UserError, check_number
from twotower.types import Negatives


class Shown:
    """Items that were shown beside the positive and not chosen, drawn without replacement.

    A positive with fewer than ``num`` has no more: the rest are copies of itself, which every loss
    masks. They count as drawn with certainty: ``log_q`` is 0, also in a mixture.

    Args:
        num: negatives per positive.
        exclude_positives: leave out what the user has interacted with in training.
        weight: of each in the loss; of a positive and of other negatives it is 1.
    """

    def __init__(self, num: int, exclude_positives: bool, weight: float = 1.0) -> None:
        check_number("negatives.num", num, 1)
        check_number("negatives.weight", weight, 1e-6, 1e6)
        self.num = num
        self.weight = weight
        self.exclude_positives = exclude_positives

    def __call__(self, positives: Positives) -> Negatives:
        """``(batch, num)`` negatives.

        Raises:
            UserError: for data that do not tell what was shown.
        """
        if positives.shown is None:
            raise UserError(
                "negatives=shown needs the items that were shown: name their column, "
                "data.reader.columns.shown (data=table), or take other negatives"
            )
        # all processes draw for the whole batch
        draw = torch.rand(positives.shown.shape, device=positives.shown.device)
        draw = draw.masked_fill(positives.shown < 0, 2.0)  # padding comes last
        order = positives.own(draw).argsort(1)[:, : self.num]
        item = positives.own(positives.shown).gather(1, order)  # (batch, at most num)
        item = F.pad(item, (0, self.num - item.shape[1]), value=-1)
        own = positives.own(positives.item)[:, None]
        left_out = item < 0
        if self.exclude_positives:
            user = positives.own(positives.user)[:, None]
            known = positives.pairs.of(user)
            left_out |= known.contain(user, item.clamp_min(0))
        weight = None
        if self.weight != 1:
            weight = torch.full((self.num,), self.weight, device=own.device)
        log_q = torch.zeros((), device=own.device)
        return Negatives(torch.where(left_out, own, item), log_q, self.num, weight=weight)
