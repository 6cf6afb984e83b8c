"""HSTU's blocks by NumPy in float64."""

import numpy as np
import pytest
import torch

from tests.helpers.history import arrays, linear, row_by_row, shaken, sigmoid
from twotower.errors import UserError
from twotower.layers.history import HSTU

DIM, LENGTH = 4, 5


def make(positions="start"):
    torch.manual_seed(3)
    encoder = shaken(HSTU(DIM, LENGTH, 2, 2, 0.0, positions, "sqrt_dim", None))
    return encoder, torch.randn(9, DIM, dtype=torch.float64)


def normed(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def silu(x):
    return x * sigmoid(x)


@pytest.mark.parametrize("positions", ["start", "relative", "none"])
def test_equals_numpy(positions):
    encoder, weight = make(positions)
    p = arrays(encoder)
    x = 2 * weight.numpy()[[5, 2, 7]]  # dim 4
    x = x + p["position"][:3] if positions == "start" else x
    for block in ("blocks.0", "blocks.1"):
        bias = p.get(f"{block}.distance", np.zeros((1, LENGTH)))[0]
        u, v, q, k = np.split(silu(normed(x) @ p[f"{block}.inputs.weight"].T), 4, axis=1)
        read = np.zeros_like(x)
        for place in range(3):
            for head in (slice(0, 2), slice(2, 4)):
                for other in range(place + 1):
                    score = q[place, head] @ k[other, head] + bias[place - other]
                    read[place, head] += silu(score) / LENGTH * v[other, head]
        x = x + linear(u * normed(read), p, f"{block}.output")
    index = torch.tensor([[0, 0, 5, 2, 7]])
    np.testing.assert_allclose(encoder(index, weight)[0].detach(), x[-1], rtol=1e-9)
    np.testing.assert_allclose(encoder.places(index, weight)[0, 2:].detach(), x, rtol=1e-9)


@pytest.mark.parametrize("positions", ["start", "relative", "none"])
def test_places_are_those_of_single_rows(positions):
    encoder, weight = make(positions)
    index = torch.randint(1, 9, (23, LENGTH)) * (torch.arange(LENGTH) >= torch.randint(6, (23, 1)))
    expected = row_by_row(encoder, index, weight)
    torch.testing.assert_close(encoder.places(index, weight), expected, rtol=0, atol=1e-10)


def test_wrong_settings_are_refused():
    for name, settings in (("num_heads", (1, 3, 0.5)), ("dropout", (1, 1, 1.0))):
        with pytest.raises(UserError, match=f"model.history.{name}"):
            HSTU(DIM, LENGTH, *settings, "end", "none", 0.0)
    with pytest.raises(UserError, match="model.history.embedding_dropout must be"):
        HSTU(DIM, LENGTH, 1, 1, 0.5, "end", "none", 1.0)
