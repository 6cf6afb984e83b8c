"""Other augmented vectors for a moment: what changes when ``a_u`` says nothing of its user any more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SIDES = ("user", "item")
Replace = Callable[[Tensor], Tensor]


def augmented_table(model: object, side: str) -> nn.Module | None:
    """The table of augmented vectors of one side, called with ids; None for a model without.

    A model that has them calls them ``user_augmented`` and ``item_augmented``.
    """
    return getattr(model, f"{side}_augmented", None)


@contextmanager
def replaced(table: nn.Module, replace: Replace) -> Iterator[None]:
    """Inside, looking ids up in ``table`` gives ``replace(vectors)``. No parameter is touched, and it ends with the block."""
    handle = table.register_forward_hook(lambda module, args, vectors: replace(vectors))
    try:
        yield
    finally:
        handle.remove()


def shuffled(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """``(num, dim)`` where every row stands in another row's place; a single one has no other."""
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    return torch.empty_like(vectors).index_copy_(0, order, vectors[order.roll(1)])


def in_turn(vectors: Tensor) -> Replace:
    """Every row looked up gets the next row of ``vectors`` ``(num, dim)``, from call to call."""
    place = 0

    def replace(own: Tensor) -> Tensor:
        nonlocal place
        place += len(own)
        return vectors[place - len(own) : place]

    return replace


def constant(vector: Tensor) -> Replace:
    """Every row gets ``vector`` ``(dim,)``."""
    return lambda vectors: vector.to(vectors.dtype).expand_as(vectors)
