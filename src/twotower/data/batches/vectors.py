"""Vectors of the model in training, for negatives that are mined with them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from twotower.retrieval.exact import encode_corpus, encode_users
from twotower.types import Features, Model


class Vectors:
    """Both sides' vectors of a model as it is now, without dropout and gradients.

    Args:
        model: in training.
        user: features of this process's positives, each ``(batch, ...)``.
        corpus: gives the features of all items, in chunks.
        num_items: of the training part, which come first.
    """

    def __init__(
        self,
        model: Model,
        user: Features,
        corpus: Callable[[], Iterable[Features]],
        num_items: int,
    ) -> None:
        self.model = model
        self._user = user
        self._corpus = corpus
        self._num_items = num_items

    def users(self) -> Tensor:
        """``(batch, dim)`` or ``(batch, num_interests, dim)``, of the positives' users."""
        with self._evaluated():
            return encode_users(self.model, self._user)

    def items(self) -> Tensor:
        """``(num_items, dim)`` of the training items; with sharded tables all processes call it."""
        with self._evaluated():
            return encode_corpus(self.model, self._corpus(), self._num_items)

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
