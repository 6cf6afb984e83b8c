"""A user whom a list is made for."""

from typing import NamedTuple

import torch
from torch import Tensor


class Person(NamedTuple):
    """A user as the model sees them.

    Attributes:
        features: of the user tower, each ``(1, ...)``.
        items: ``(num_items,)`` corpus indices of their interactions, oldest first.
        targets: ``(num_targets,)`` held-out items; empty if nothing is held out.
    """

    features: dict[str, Tensor]
    items: Tensor
    targets: Tensor = torch.empty(0, dtype=torch.long)
