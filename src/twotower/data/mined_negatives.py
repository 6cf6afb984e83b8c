"""Hard negatives: the items that the model now ranks highest for a positive's user."""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.data.batches.rows import is_again
from twotower.data.batches.vectors import Vectors
from twotower.data.sampling import Mixed, Positives
from twotower.errors import UserError, check_number
from twotower.retrieval.exact import top_k
from twotower.retrieval.inverted_lists import default_num_lists
from twotower.types import Features, Negatives


class Mined:
    """Drawn from the items with the highest scores for the user (ANCE, Xiong et al., ICLR 2021).

    Item vectors are those of the last renewal, user vectors those of the current step, both
    without dropout. They are also renewed after each checkpoint, so that a resumed run mines what
    the run would have mined. The draw is not from a distribution that a loss could correct for:
    ``log_q`` is 0, also in a mixture.

    Args:
        num: negatives per positive.
        skip: so many of the best are left out, as they may be positives that nobody has seen yet.
        pool: so many after those are drawn from, without replacement.
        every_n_steps: batches of a process between two renewals of the item vectors.
        exclude_positives: leave out what the user has interacted with in training, before the best
            are counted.
        approximate: search inverted lists (Faiss) instead of all items; for large corpora on a CPU.

    Raises:
        UserError: for numbers out of range.
    """

    def __init__(
        self,
        num: int,
        skip: int,
        pool: int,
        every_n_steps: int,
        exclude_positives: bool,
        approximate: bool,
    ) -> None:
        check_number("negatives.num", num, 1)
        check_number("negatives.skip", skip, 0)
        check_number("negatives.pool", pool, num)
        check_number("negatives.every_n_steps", every_n_steps, 1)
        self.num = num
        self.skip = skip
        self.pool = pool
        self.every_n_steps = every_n_steps
        self.exclude_positives = exclude_positives
        self.approximate = approximate
        self._items: Tensor | None = None  # (num_items, dim) of the last renewal
        self._index: Any = None
        self._steps = 0  # since then

    def forget(self) -> None:
        """Renew the item vectors at the next draw."""
        self._items = None

    def __call__(self, positives: Positives) -> Negatives:
        """``(batch, num)`` negatives. Copies of the positive, which losses mask, if none is left.

        Raises:
            UserError: without a model.
        """
        vectors = positives.vectors
        if vectors is None:
            raise UserError("negatives=mined needs the model in training")
        if self._items is None or self._steps >= self.every_n_steps:
            self._items, self._steps = vectors.items(), 0
            self._index = inverted_lists(self._items) if self.approximate else None
        self._steps += 1
        hard = self._search(vectors.users(), positives)  # (batch, pool)
        # all processes draw for the whole batch
        draw = torch.rand(len(positives.item), self.pool, device=hard.device)
        draw = positives.own(draw).masked_fill(hard < 0, 2.0)  # missing ones come last
        item = hard.gather(1, draw.argsort(1)[:, : self.num])  # (batch, num)
        own = positives.own(positives.item)[:, None]
        return Negatives(
            torch.where(item < 0, own, item), torch.zeros((), device=own.device), self.num
        )

    def _search(self, user: Tensor, positives: Positives) -> Tensor:
        """``(batch, pool)`` the best items after the skipped ones, -1 where there are no more."""
        assert self._items is not None
        item, owner = positives.own(positives.item), positives.own(positives.user)
        known = positives.pairs.of(owner)  # with each row's own positive
        if self._index is not None:
            found = self._nearest(user)
            own = item[:, None] == found
            if self.exclude_positives:
                own = known.contain(owner[:, None], found.clamp_min(0))
            found = found.masked_fill(own, -1)
            found = found.gather(1, (found < 0).long().argsort(dim=1, stable=True))  # -1 comes last
        else:
            hidden = torch.arange(len(item), device=item.device), item
            if self.exclude_positives:
                hidden = known.pairs(owner)
            score, best = top_k(user, self._items, *hidden, self.skip + self.pool)
            found = best.masked_fill(score == -math.inf, -1)
        found = found[:, self.skip : self.skip + self.pool]
        return F.pad(found, (0, self.pool - found.shape[1]), value=-1)

    def _nearest(self, user: Tensor) -> Tensor:
        """``(batch, width)`` items of the index by their best interest, each once, -1 pads.

        Twice as many as are needed, as some of them are known to the user.
        """
        width = 2 * (self.skip + self.pool)
        query = user.reshape(-1, user.shape[-1]).float().cpu().numpy()
        score, item = (torch.from_numpy(part) for part in self._index.search(query, width))
        score, item = (part.view(len(user), -1) for part in (score, item))
        order = score.argsort(dim=1, descending=True, stable=True)
        item = item.gather(1, order)
        item = item.masked_fill(is_again(item), -1)
        return item.to(user.device)


def inverted_lists(items: Tensor) -> Any:
    """A Faiss index of ``(num_items, dim)`` vectors by inner product.

    Raises:
        UserError: without Faiss.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "negatives.approximate=true needs Faiss: pip install 'twotower[export]'"
        ) from error
    vectors = items.float().cpu().contiguous().numpy()
    num_items, dim = vectors.shape
    num_lists = default_num_lists(num_items)
    index: Any = faiss.index_factory(dim, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(1, round(math.sqrt(num_lists)))
    return index


def miners(sampler: Any) -> list[Mined]:
    """The parts of a sampler that search with the model."""
    parts = [sampler.first, sampler.second] if isinstance(sampler, Mixed) else [sampler]
    return [part for part in parts if isinstance(part, Mined)]


def current_vectors(data: Any, user: Features) -> Vectors | None:
    """What the samplers of a data module search with in a step; None if none does.

    Args:
        data: the data module.
        user: features of this process's positives.
    """
    if not miners(data.negatives) or data.trainer is None:
        return None
    corpus = partial(data.corpus, user["user_id"].device)
    model = data.trainer.lightning_module.model
    return Vectors(model, user, corpus, data.schema.num_train_items)
