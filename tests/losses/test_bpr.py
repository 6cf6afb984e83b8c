"""BPR by hand."""

import math

import pytest
import torch

from tests.helpers.losses import make_batch
from twotower.errors import UserError
from twotower.losses.bpr import BPR
from twotower.types import Towers


def test_bpr_by_hand():
    # user (1, 2); items (3, 0), (0, 1), (1, 1): scores 3, 2, 3; temperature 0.5 doubles them.
    # Positive 1: 4; negatives 0 and 2: 6 and 6: softplus(6 - 4) = 2.126928 twice.
    # A negative equal to the positive contributes 0 of the three.
    towers = Towers(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    loss = BPR(0.5)(towers, make_batch([1], [[0, 2, 1]], num_items=3))
    assert loss.item() == pytest.approx(2 * 2.126928 / 3, abs=1e-5)


def test_bpr_gradient_pulls_the_positive_up():
    # d/ds_pos = -σ(-(s_pos - s_neg)): scores 2 and 1, -σ(-1) = -.268941;
    # the masked negative gives no gradient, and no NaN
    item = torch.tensor([[2.0], [1.0]], requires_grad=True)
    BPR(1.0)(Towers(torch.ones(1, 1), item), make_batch([0], [[1, 0]], num_items=2)).backward()
    assert item.grad.flatten().tolist() == pytest.approx([-0.268941 / 2, 0.268941 / 2], abs=1e-6)


def test_bpr_refuses_shared_negatives():
    with pytest.raises(UserError, match="negatives=uniform"):
        BPR(1.0)(Towers(torch.ones(1, 1), torch.ones(1, 1)), make_batch([0], num_draws=[1]))


@pytest.mark.parametrize("temperature", [0, math.nan])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(UserError, match=r"loss\.task\.temperature"):
        BPR(temperature)
