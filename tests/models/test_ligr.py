"""LiGR's blocks by NumPy in float64."""

import numpy as np
import pytest
import torch

from tests.helpers.history import arrays, attend, linear, norm, row_by_row, shaken, sigmoid
from twotower.errors import UserError
from twotower.layers.history import LiGR

DIM, LENGTH = 4, 5


def make(positions="end", input_scale="none"):
    torch.manual_seed(3)
    encoder = shaken(LiGR(DIM, LENGTH, 2, 2, 0.0, 3, positions, input_scale))
    return encoder, torch.randn(9, DIM, dtype=torch.float64)


def test_equals_numpy():
    encoder, weight = make()
    p = arrays(encoder)
    x = weight.numpy()[[5, 2, 7]] + p["position"][[2, 1, 0]]
    for block in ("blocks.0", "blocks.1"):
        normed = norm(x, p, f"{block}.attention_norm")
        read = attend(normed, normed, p, block, 2)
        x = x + sigmoid(linear(x, p, f"{block}.attention_gate")) * read
        inner = norm(x, p, f"{block}.network_norm") @ p[f"{block}.inner.weight"].T
        swish, value = inner[:, :12], inner[:, 12:]
        network = (swish * sigmoid(swish) * value) @ p[f"{block}.outer.weight"].T
        x = x + sigmoid(linear(x, p, f"{block}.network_gate")) * network
    index = torch.tensor([[0, 0, 5, 2, 7]])
    np.testing.assert_allclose(encoder(index, weight)[0].detach(), x[-1], rtol=1e-10)
    np.testing.assert_allclose(encoder.places(index, weight)[0, 2:].detach(), x, rtol=1e-10)


@pytest.mark.parametrize("positions", ["start", "relative", "none"])
def test_places_are_those_of_single_rows(positions):
    encoder, weight = make(positions, "sqrt_dim")
    index = torch.randint(1, 9, (23, LENGTH)) * (torch.arange(LENGTH) >= torch.randint(6, (23, 1)))
    expected = row_by_row(encoder, index, weight)
    torch.testing.assert_close(encoder.places(index, weight), expected, rtol=0, atol=1e-10)


def test_gates_by_hand():
    """Closed gates leave the item's embedding; half-open ones add half of a part's output."""
    encoder, weight = LiGR(DIM, 1, 1, 1, 0.0, 1, "none", "none"), torch.randn(9, DIM)
    block, index = encoder.blocks[0], torch.tensor([[5]])
    with torch.no_grad():
        for gate in (block.attention_gate, block.network_gate):
            gate.weight.zero_()
            gate.bias.fill_(-100.0)
        torch.testing.assert_close(encoder(index, weight), weight[[5]])
        block.attention_gate.bias.zero_()
        block.output.weight.zero_()
        block.output.bias.fill_(3.0)
        torch.testing.assert_close(encoder(index, weight), weight[[5]] + 1.5)


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match="model.history.network_ratio must be"):
        LiGR(DIM, LENGTH, 1, 1, 0.5, 0, "end", "none")
    with pytest.raises(UserError, match="model/history=ligr needs a history"):
        LiGR(DIM, 0, 1, 1, 0.5, 4, "end", "none")
