"""A user whom a list is made for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare.newcomers import from_values
from twotower.errors import UserError


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


def context_values(
    data: RetrievalDataModule, context: Mapping[str, Any] | None
) -> dict[str, Tensor]:
    """The given features of a request, each ``(1, ...)``.

    Args:
        data: the data module.
        context: raw values by name; None: none is known.

    Raises:
        UserError: for a name that the data do not have.
    """
    if not context:
        return {}
    for name in context:
        if name not in data.schema.context:
            known = ", ".join(data.schema.context) or "none"
            raise UserError(f"context: {name} is no context of these data; there are {known}")
    values = from_values("user", data.schema.user, context, data.encodings)
    return {name: values[name] for name in context}
