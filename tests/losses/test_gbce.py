"""gBCE by hand."""

import math

import numpy as np
import pytest
import torch

from tests.helpers.losses import make_batch
from twotower.errors import UserError
from twotower.losses.bce import BCE
from twotower.losses.gbce import GBCE
from twotower.types import Towers


def towers(num_items=4):
    generator = torch.Generator().manual_seed(0)
    user = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    item = torch.randn(num_items, 3, generator=generator, dtype=torch.float64)
    return Towers(user, item)


def test_gbce_by_hand():
    # Scores 2 (positive), .5 and -1; 2 negatives of 10 other items: α = .2. With t = .75,
    # β = .75 (.2 - 1) + 1 = .4. softplus(-2) = .126928, softplus(.5) = .974077,
    # softplus(-1) = .313262: (.4 * .126928 + .974077 + .313262) / 3 = .446037.
    one = Towers(torch.tensor([[1.0]]), torch.tensor([[2.0], [0.5], [-1.0]]))
    batch = make_batch([0], [[1, 2]], num_items=3, log_q=[-math.log(10)] * 3)
    assert GBCE(1.0, 0.75)(one, batch).item() == pytest.approx(0.446037, abs=1e-6)
    # temperature .5 doubles the scores: (.4 softplus(-4) + softplus(1) + softplus(-2)) / 3
    expected = (0.4 * 0.018150 + 1.313262 + 0.126928) / 3
    assert GBCE(0.5, 0.75)(one, batch).item() == pytest.approx(expected, abs=1e-6)


def test_gbce_equals_its_reference():
    """-1 / (k + 1) (log σ(s+)^β + Σ log(1 - σ(s-))); a negative equal to it counts nothing."""
    positive, negative, t, num_others = [0, 2], [[1, 3, 3], [0, 2, 1]], 0.5, 40
    batch = make_batch(positive, negative, num_items=4, log_q=[-math.log(num_others)] * 4)
    score = (towers().user @ towers().item.T).numpy()
    beta = t * (3 / num_others - 1) + 1
    total = 0.0
    for row, (own, drawn) in enumerate(zip(positive, negative, strict=True)):
        total += beta * np.log(1 / (1 + np.exp(-score[row, own])))
        total += sum(np.log(1 - 1 / (1 + np.exp(-score[row, n]))) for n in drawn if n != own)
    loss = GBCE(1.0, t)(towers(), batch)
    assert loss.item() == pytest.approx(-total / 8, abs=1e-7)


def test_without_calibration_it_is_bce():
    batch = make_batch([0, 2], [[1, 3], [0, 1]], num_items=4, log_q=[-3.0] * 4)
    assert GBCE(0.7, 0.0)(towers(), batch).item() == pytest.approx(BCE(0.7)(towers(), batch).item())


def test_the_gradient_of_positives_is_scaled():
    # d/ds+ = -β σ(-s+) / pairs; the negatives' gradients are those of BCE
    item = torch.tensor([[2.0], [1.0]], requires_grad=True)
    batch = make_batch([0], [[1]], num_items=2, log_q=[math.log(0.5)] * 2)
    GBCE(1.0, 1.0)(Towers(torch.ones(1, 1), item), batch).backward()
    expected = [-0.5 * 0.119203 / 2, 0.731059 / 2]
    assert item.grad.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_more_draws_than_items_are_all_items():
    batch = make_batch([0, 2], [[1, 3, 1], [0, 1, 3]], num_items=4, log_q=[-math.log(2)] * 4)
    one = GBCE(1.0, 1.0)(towers(), batch).item()
    assert one == pytest.approx(BCE(1.0)(towers(), batch).item())  # α = 1: nothing to correct


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="negatives=uniform"):
        GBCE(1.0, 0.5)(towers(1), make_batch([0], num_draws=[1]))
    for calibration in (-0.1, 1.1, math.nan):
        with pytest.raises(UserError, match=r"loss\.task\.calibration"):
            GBCE(1.0, calibration)
