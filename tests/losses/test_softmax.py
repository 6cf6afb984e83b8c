"""Softmax over own and shared negatives by hand, with logQ and masked accidental hits."""

import math

import pytest
import torch

from tests.helpers.losses import make_batch
from twotower.losses.softmax import Softmax
from twotower.types import Towers

# user 2; items 1, 3, 2: scores 2, 6, 4; temperature 2 halves them.
# Positive 0; q = .5, .25, .25 adds log 2, log 4, log 4.
TOWERS = Towers(torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0], [2.0]]))
LOG_Q = [math.log(0.5), math.log(0.25), math.log(0.25)]
WEIGHT = {False: (1, 1, 1), True: (2, 4, 4)}


@pytest.mark.parametrize("correct_log_q", [False, True])
def test_own_negatives_by_hand(correct_log_q):
    positive, first, second = (
        w * math.exp(s) for w, s in zip(WEIGHT[correct_log_q], (1, 3, 2), strict=True)
    )
    # item 1 twice; the positive is no negative of its own
    batch = make_batch([0], [[1, 0, 2, 1]], num_items=3, log_q=LOG_Q)
    expected = -math.log(positive / (positive + 2 * first + second))
    assert Softmax(2.0, correct_log_q)(TOWERS, batch).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("correct_log_q", [False, True])
def test_shared_negatives_by_hand(correct_log_q):
    positive, first, _ = (
        w * math.exp(s) for w, s in zip(WEIGHT[correct_log_q], (1, 3, 2), strict=True)
    )
    batch = make_batch([0], num_draws=[3, 2, 0], num_items=3, log_q=LOG_Q)  # item 2 was not drawn
    expected = -math.log(positive / (positive + 2 * first))
    assert Softmax(2.0, correct_log_q)(TOWERS, batch).item() == pytest.approx(expected, rel=1e-6)
