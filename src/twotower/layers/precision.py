"""Computation in float32 or better, whatever precision the trainer works in."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from twotower.types import Model


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def full_precision(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Context without autocast and without reduced-precision matrix products.

    Rounded scores would tie, and ties count against the model.

    Args:
        device: of the computation.
        dtype: of tensors created without one.
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
def float32_weights(model: Model) -> Iterator[None]:
    """Context in which 16-bit weights are float32 copies, as in a model loaded from a checkpoint.

    The optimizer, DDP and recorded graphs refer to the original tensors, which return at the end
    with the same memory. Without 16-bit weights nothing is copied.
    """
    low = [(tensor, tensor.data) for tensor in float_tensors(model) if tensor.element_size() < 4]
    with torch.inference_mode(False):
        for tensor, data in low:
            tensor.data = data.float()
    try:
        yield
    finally:
        for tensor, data in low:
            tensor.data = data


def float_tensors(model: Model) -> list[Tensor]:
    """Parameters and buffers that hold floating-point numbers; none of an exported model."""
    if not isinstance(model, nn.Module):
        return []
    tensors = chain(model.parameters(), model.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point()]
