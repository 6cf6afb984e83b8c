"""Vectors to rank by: users and items alike in float32 or better, however the model trains."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from twotower.types import Model


def encode_users(model: Model, features: dict[str, Tensor]) -> Tensor:
    """``(batch, dim)``, or ``(batch, num_interests, dim)``, of users with these features."""
    with in_full(model), full_precision(_device(features), _dtype(model)):
        return at_least_float32(model.encode_user(features))


def encode_items(model: Model, features: dict[str, Tensor]) -> Tensor:
    """``(batch, dim)`` of items with these features."""
    with in_full(model), full_precision(_device(features), _dtype(model)):
        return at_least_float32(model.encode_item(features))


def encode_corpus(model: Model, chunks: Iterable[dict[str, Tensor]]) -> Tensor:
    """``(num_items, dim)`` of all items, from their features as ``corpus`` of a data module gives them."""
    with in_full(model):
        return torch.cat([encode_items(model, features) for features in chunks])


def at_least_float32(vectors: Tensor) -> Tensor:
    """The same, in float64 where they are."""
    return vectors if vectors.dtype == torch.float64 else vectors.float()


@contextmanager
def full_precision(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Inside, nothing is rounded by the trainer's precision: rounded scores tie, and ties count against the model.

    Args:
        device: where is computed.
        dtype: of numbers that are made without one.
    """
    before = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    torch.set_float32_matmul_precision("highest")
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_default_dtype(before[1])


@contextmanager
def in_full(model: Model) -> Iterator[None]:
    """Inside, weights of 16 bits are float32 copies of themselves, as in a model that is loaded.

    What trains them (optimizer, DDP, recorded graphs) finds its own tensors again after it, with the
    same memory. Takes time and memory for a copy once; nothing where weights are float32 already.
    """
    low = [(tensor, tensor.data) for tensor in _floating(model) if tensor.element_size() < 4]
    with torch.inference_mode(False):
        for tensor, data in low:
            tensor.data = data.float()
    try:
        yield
    finally:
        for tensor, data in low:
            tensor.data = data


def _floating(model: Model) -> list[Tensor]:
    if not isinstance(model, nn.Module):
        return []
    tensors = chain(model.parameters(), model.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _dtype(model: Model) -> torch.dtype:
    double = any(tensor.dtype == torch.float64 for tensor in _floating(model))
    return torch.float64 if double else torch.float32


def _device(features: dict[str, Tensor]) -> torch.device:
    return next(iter(features.values())).device
