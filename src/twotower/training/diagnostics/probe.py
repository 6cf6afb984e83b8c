"""Replaces a model's augmented vectors temporarily, to measure the effect on the metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def augmented_table(model: object, side: str) -> nn.Module | None:
    """The table of augmented vectors of ``user`` or ``item``, called with ids; None without one."""
    return getattr(model, f"{side}_augmented", None)


@contextmanager
def replaced(table: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Inside, rows looked up in ``table`` are the rows of ``vectors`` in turn, call after call.

    Args:
        table: no parameter of it is touched.
        vectors: ``(num, dim)`` for all rows that are looked up inside.
    """
    start = 0

    def give(module: nn.Module, args: tuple[Tensor], own: Tensor) -> Tensor:
        nonlocal start
        start += len(own)
        return vectors[start - len(own) : start].to(own.dtype)

    handle = table.register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()


def shuffled(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """``(num, dim)`` with each row in the place of another one; a single row stays."""
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    return torch.empty_like(vectors).index_copy_(0, order, vectors[order.roll(1)])
