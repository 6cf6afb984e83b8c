"""BSARec's blocks by NumPy in float64, and its filter by numpy.fft."""

import math

import numpy as np
import pytest
import torch

from tests.helpers.history import arrays, attend, gelu, linear, norm, row_by_row, shaken
from twotower.errors import UserError
from twotower.layers.history import BSARec
from twotower.layers.history.bsarec import low_pass

DIM, LENGTH = 4, 7


def make(positions="end", alpha=0.7, c=3):
    torch.manual_seed(3)
    encoder = shaken(BSARec(DIM, LENGTH, 2, 2, 0.0, alpha, c, positions))
    for block in encoder.blocks:
        block.low_pass = low_pass(LENGTH, c)  # it was rounded to float32
    return encoder, torch.randn(9, DIM, dtype=torch.float64)


def lowest(window, c):
    """The lowest frequencies of a whole window, as in the paper."""
    spectrum = np.fft.rfft(window, axis=0)
    spectrum[c // 2 + 1 :] = 0
    return np.fft.irfft(spectrum, n=len(window), axis=0)


def causal_lowest(x, c):
    """At each place, those of a window that ends there and is padded with zeros on the left."""
    padded = np.concatenate([np.zeros((LENGTH, x.shape[1])), x])
    return np.stack(
        [lowest(padded[end - LENGTH : end], c)[-1] for end in LENGTH + 1 + np.arange(len(x))]
    )


@pytest.mark.parametrize("alpha, c", [(0.7, 3), (0.2, 5), (1.0, 20)])
@pytest.mark.parametrize("num_items", [1, 3, LENGTH])
def test_equals_numpy(alpha, c, num_items):
    encoder, weight = make(alpha=alpha, c=c)
    p, items = arrays(encoder), [5, 2, 7, 2, 1, 8, 3][:num_items]
    x = weight.numpy()[items] + p["position"][:num_items][::-1]
    x = norm(x, p, "input_norm")
    for block in ("blocks.0", "blocks.1"):
        low = causal_lowest(x, c)
        filtered = low + p[f"{block}.beta"] ** 2 * (x - low)
        mixed = alpha * norm(x + filtered, p, f"{block}.filter_norm") + (1 - alpha) * norm(
            x + attend(x, x, p, block, 2), p, f"{block}.attention_norm"
        )
        inner = gelu(linear(mixed, p, f"{block}.network.0"))
        x = norm(mixed + linear(inner, p, f"{block}.network.2"), p, f"{block}.network_norm")
    index = torch.tensor([[0] * (LENGTH - num_items) + items])
    np.testing.assert_allclose(encoder(index, weight)[0].detach(), x[-1], rtol=1e-9)
    np.testing.assert_allclose(encoder.places(index, weight)[0, -num_items:].detach(), x, rtol=1e-9)


def test_weights_by_hand():
    """Length 4: frequency 0 is the mean; 1 adds cos(pi d / 2) / 2; 2 makes it the item itself."""
    torch.testing.assert_close(low_pass(4, 1), torch.full((4,), 0.25).double())
    torch.testing.assert_close(low_pass(4, 3), torch.tensor([0.75, 0.25, -0.25, 0.25]).double())
    torch.testing.assert_close(low_pass(4, 4), torch.tensor([1.0, 0.0, 0.0, 0.0]).double())


def test_weights_are_those_of_the_equation():
    for d, weight in enumerate(low_pass(50, 5).tolist()):
        wave = sum(math.cos(2 * math.pi * k * d / 50) for k in (1, 2))
        assert weight == pytest.approx((1 + 2 * wave) / 50)


@pytest.mark.parametrize("positions", ["start", "relative", "none"])
def test_places_are_those_of_single_rows(positions):
    encoder, weight = make(positions)
    index = torch.randint(1, 9, (23, LENGTH)) * (torch.arange(LENGTH) >= torch.randint(8, (23, 1)))
    expected = row_by_row(encoder, index, weight)
    torch.testing.assert_close(encoder.places(index, weight), expected, rtol=0, atol=1e-10)


def test_parts_have_dropouts_of_their_own():
    torch.manual_seed(0)
    encoder, weight = make(positions="none")
    block, dropped = encoder.blocks[0], []
    block.dropout.register_forward_hook(lambda *call: dropped.append(call[2] == 0))
    block.train().dropout.p = 0.5
    encoder(torch.tensor([[0, 0, 0, 0, 5, 2, 7]]), weight)
    assert len(dropped) == 3 and not torch.equal(dropped[0], dropped[1])


def test_wrong_settings_are_refused():
    for name, settings in (("alpha", (1.5, 5)), ("c", (0.5, 0))):
        with pytest.raises(UserError, match=f"model.history.{name} must be"):
            BSARec(DIM, LENGTH, 1, 1, 0.5, *settings, "end")
    with pytest.raises(UserError, match="model/history=bsarec needs a history"):
        BSARec(DIM, 0, 1, 1, 0.5, 0.7, 5, "end")
