"""Hard negatives: the items that the model now ranks highest for a positive's user."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.data.sampling import Mixed, Positives
from twotower.errors import UserError, check_number
from twotower.retrieval.exact import encode_corpus, encode_users
from twotower.types import Model, Negatives, TrainIndex

CHUNK = 1 << 25  # scores at a time, 128 MiB of float32
ITEMS_PER_CENTRE = 39  # that Faiss needs to learn a centre


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
        user = vectors.users()
        user = user if user.dim() == 3 else user[:, None]  # (batch, num_interests, dim)
        hard = self._search(user, positives)  # (batch, pool)
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
        if self._index is not None:
            found = self._nearest(user)
            found = torch.where(self._hidden(found, item, owner, positives), -1, found)
            found = found.gather(1, (found < 0).long().argsort(dim=1, stable=True))  # -1 comes last
            return found[:, self.skip : self.skip + self.pool]
        corpus, best = torch.arange(len(self._items), device=item.device), []
        rows = max(1, CHUNK // (len(corpus) * user.shape[1]))
        for one, own, who in zip(*(part.split(rows) for part in (user, item, owner)), strict=True):
            score = (one @ self._items.T).amax(1)  # (rows, num_items)
            score[torch.arange(len(own), device=own.device), own] = -math.inf
            if self.exclude_positives:
                score.masked_fill_(positives.pairs.mask(who, corpus), -math.inf)
            top = score.topk(min(len(corpus), self.skip + self.pool), 1)
            best.append(top.indices.masked_fill(top.values == -math.inf, -1))
        found = torch.cat(best)[:, self.skip :]
        return F.pad(found, (0, self.pool - found.shape[1]), value=-1)

    def _hidden(self, found: Tensor, item: Tensor, owner: Tensor, positives: Positives) -> Tensor:
        """``(batch, width)`` True where a found item is none, the positive, or known."""
        hidden = (found < 0) | (found == item[:, None])
        if self.exclude_positives:
            known = positives.pairs.of(owner[:, None])
            hidden |= known.contain(owner[:, None], found.clamp_min(0))
        return hidden

    def _nearest(self, user: Tensor) -> Tensor:
        """``(batch, width)`` items of the index by their best interest, each once, -1 pads.

        Twice as many as are needed, as some of them are known to the user.
        """
        width = 2 * (self.skip + self.pool)
        batch, num_interests, dim = user.shape
        query = user.reshape(-1, dim).float().cpu().numpy()
        score, item = (torch.from_numpy(part) for part in self._index.search(query, width))
        score, item = (part.view(batch, num_interests * width) for part in (score, item))
        order = score.argsort(dim=1, descending=True, stable=True)
        item = item.gather(1, order)
        if num_interests > 1:  # a later copy of an item goes
            value, place = item.sort(dim=1, stable=True)
            again = F.pad(value[:, 1:] == value[:, :-1], (1, 0))
            item = item.masked_fill(torch.zeros_like(again).scatter(1, place, again), -1)
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
    num_lists = max(1, min(int(4 * math.sqrt(num_items)), num_items // ITEMS_PER_CENTRE))
    index: Any = faiss.index_factory(dim, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(1, round(math.sqrt(num_lists)))
    return index


class CurrentVectors:
    """See :class:`~twotower.data.sampling.Vectors`.

    Args:
        model: in training.
        data: the data module.
        index: of the step.
    """

    def __init__(self, model: Model, data: Any, index: TrainIndex) -> None:
        self.model = model
        self.data = data
        self.position = index.position[index.rank :: index.world_size]  # (batch,)

    def users(self) -> Tensor:
        """See :class:`~twotower.data.sampling.Vectors`."""
        with self._evaluated():
            return encode_users(self.model, self.data.train_features(self.position))

    def items(self) -> Tensor:
        """See :class:`~twotower.data.sampling.Vectors`."""
        with self._evaluated():
            corpus = self.data.corpus(self.position.device)
            return encode_corpus(self.model, corpus)[: self.data.schema.num_train_items]

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        modes = {module: module.training for module in self.model.modules()}
        self.model.train(False)
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def miners(sampler: Any) -> list[Mined]:
    """The parts of a sampler that search with the model."""
    parts = [sampler.first, sampler.second] if isinstance(sampler, Mixed) else [sampler]
    return [part for part in parts if isinstance(part, Mined)]


def current_vectors(data: Any, index: TrainIndex) -> CurrentVectors | None:
    """What the samplers of a data module search with in a step; None if none does."""
    if not miners(data.negatives) or data.trainer is None:
        return None
    return CurrentVectors(data.trainer.lightning_module.model, data, index)
