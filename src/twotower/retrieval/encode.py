"""User and item vectors for ranking, in float32 or better in every trainer precision."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from twotower.layers.precision import (
    at_least_float32,
    float32_weights,
    float_tensors,
    full_precision,
)
from twotower.types import Features, Model


def encode_users(model: Model, features: Features) -> Tensor:
    """``(batch, dim)``, or ``(batch, num_interests, dim)``, of users with these features."""
    return _encode(model, model.encode_user, features)


def encode_items(model: Model, features: Features) -> Tensor:
    """``(batch, dim)`` of items with these features."""
    return _encode(model, model.encode_item, features)


def encode_corpus(model: Model, chunks: Iterable[Features]) -> Tensor:
    """``(num_items, dim)`` of all items, from the chunks of features of ``data.corpus``."""
    with float32_weights(model):  # one conversion for all chunks
        return torch.cat([encode_items(model, features) for features in chunks])


def _encode(model: Model, encoder: Callable[[Features], Tensor], features: Features) -> Tensor:
    is_double = any(tensor.dtype == torch.float64 for tensor in float_tensors(model))
    dtype = torch.float64 if is_double else torch.float32
    device = next(iter(features.values())).device
    with float32_weights(model), full_precision(device, dtype):
        return at_least_float32(encoder(features))
