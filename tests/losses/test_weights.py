"""Weights of positives in every loss: a weight of 2 is the positive twice, of 0 its absence."""

import math

import pytest
import torch

from tests.helpers.losses import NoTask, make_batch, paper_alignment
from twotower.losses.bce import BCE
from twotower.losses.bpr import BPR
from twotower.losses.dat import DATLoss
from twotower.losses.functional import softmax_cross_entropy
from twotower.losses.gbce import GBCE
from twotower.losses.in_batch_softmax import InBatchSoftmax
from twotower.losses.multi_objective import MultiObjective
from twotower.losses.softmax import Softmax
from twotower.types import Schema, Towers

SCHEMA = Schema((), (), 5, 5, 2)
REPEATED = torch.tensor([0, 0, 2])  # the rows for weights of 2, 0 and 1
LOG_Q = [-0.4, -1.2, -0.9, -2.0, -1.5]


class OfTask(torch.nn.Module):
    """The total of a loss with terms."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, towers, batch):
        return self.loss(towers, batch).total


def dat(lambda1, lambda2, reduction):
    settings = (lambda1, lambda2, 0.0, reduction, "sum")
    return OfTask(DATLoss(SCHEMA, NoTask(), *settings, paper_alignment))


LOSSES = {
    "bce": (BCE(0.5), "own"),
    "gbce": (GBCE(0.5, 0.75), "own"),
    "bpr": (BPR(0.5), "own"),
    "sampled softmax": (Softmax(0.5, True), "own"),
    "shared softmax": (Softmax(0.5, True), "shared"),
    "softmax in chunks": (Softmax(0.5, True, chunk=2), "shared"),
    "in-batch softmax": (InBatchSoftmax(0.5, True, False), "shared"),
    "objectives": (
        OfTask(MultiObjective(SCHEMA._replace(num_behaviours=2), [[0], [0, 1]], [1.0, 0.5], 0.5)),
        "own",
    ),
    "mimic_user": (dat(0.5, 0.0, "pairs"), "own"),
    "mimic_item": (dat(0.0, 0.5, "positives"), "own"),
}


def example(negatives, rows=slice(None)):
    """Three positives, or some of them, with what belongs to each."""
    generator = torch.Generator().manual_seed(0)
    user, item, a_u, a_v = (
        torch.randn(num, 3, generator=generator, dtype=torch.float64) for num in (3, 5, 3, 5)
    )
    leaves = [vectors.requires_grad_() for vectors in (user, item, a_u, a_v)]
    towers = Towers(user[rows], item, a_u[rows], a_v, (item, 2 * item))
    own = {"negative": [[1, 2], [3, 4], [0, 3]], "num_pairs": 9}
    draws = {"num_draws": [1, 0, 2, 1, 1], "num_pairs": 9}
    batch = make_batch([0, 4, 2], num_items=5, log_q=LOG_Q, **own if negatives == "own" else draws)
    batch = batch._replace(
        positive=batch.positive[rows],
        negative=None if batch.negative is None else batch.negative[rows],
        behaviour=torch.zeros(3, dtype=torch.long)[rows],
        user={"user_id": torch.arange(3)[rows]},
    )
    return leaves, towers, batch


@pytest.mark.parametrize("name", LOSSES)
def test_whole_weights_are_repeated_rows(name):
    loss, negatives = LOSSES[name]
    leaves, towers, batch = example(negatives)
    weight = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    weighted = loss(towers, batch._replace(weight=weight))
    found = torch.autograd.grad(weighted, leaves, allow_unused=True)
    leaves, towers, batch = example(negatives, REPEATED)
    repeated = loss(towers, batch)
    expected = torch.autograd.grad(repeated, leaves, allow_unused=True)
    torch.testing.assert_close(weighted, repeated)
    for own, other in zip(found, expected, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other)
    unweighted = loss(*example(negatives)[1:])
    assert abs(unweighted.item() - weighted.item()) > 1e-3  # the rows differ


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_1_change_nothing(name):
    loss, negatives = LOSSES[name]
    _, towers, batch = example(negatives)
    weight = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(loss(towers, batch._replace(weight=weight)), loss(towers, batch))


# loss, and by what its mean over one row of these weights counts less than over the repeated row
NEGATIVES = {
    "bce": (BCE(0.5), 4 / 3),
    "gbce": (GBCE(0.5, 0.0), 4 / 3),
    "bpr": (BPR(0.5), 3 / 2),
    "sampled softmax": (Softmax(0.5, True), 1),
    "objectives": (
        OfTask(MultiObjective(SCHEMA._replace(num_behaviours=2), [[0], [0, 1]], [1.0, 0.5], 0.5)),
        4 / 3,
    ),
}


@pytest.mark.parametrize("name", NEGATIVES)
def test_a_negative_of_weight_2_is_two_of_them(name):
    loss, ratio = NEGATIVES[name]
    leaves, towers, batch = example("own")
    weight = torch.tensor([2.0, 1.0], dtype=torch.float64)
    weighted = loss(towers, batch._replace(negative_weight=weight))
    found = torch.autograd.grad(weighted, leaves[:2])
    leaves, towers, batch = example("own")
    twice = loss(towers, batch._replace(negative=batch.negative[:, [0, 0, 1]])) * ratio
    expected = torch.autograd.grad(twice, leaves[:2])
    torch.testing.assert_close(weighted, twice)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)
    ones = loss(towers, batch._replace(negative_weight=torch.ones(2, dtype=torch.float64)))
    torch.testing.assert_close(ones, loss(towers, batch))
    assert abs(ones.item() - weighted.item()) > 1e-3


def test_by_hand():
    # Scores 1 and 0 for the first user, 0 and 2 for the second; weights 3 and 1/2.
    towers = Towers(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2))
    batch = make_batch([0, 0], [[1], [1]], num_items=2)._replace(weight=torch.tensor([3.0, 0.5]))
    softplus = [math.log1p(math.exp(x)) for x in (-1, 0, 0, 2)]
    expected = (3 * (softplus[0] + softplus[1]) + 0.5 * (softplus[2] + softplus[3])) / 4
    assert BCE(1.0)(towers, batch).item() == pytest.approx(expected)
    first, second = math.log1p(math.exp(-1)), math.log1p(math.exp(2))
    expected = (3 * first + 0.5 * second) / 2
    assert BPR(1.0)(towers, batch).item() == pytest.approx(expected)
    assert Softmax(1.0, False)(towers, batch).item() == pytest.approx(expected)


def test_of_several_models_in_one_pass():
    logits, label = torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([1, 0, 3])
    weight = torch.tensor([0.5, 2.0, 0.1], dtype=torch.float64)
    both = torch.vmap(lambda own: softmax_cross_entropy(own, label, weight))(logits)
    single = torch.stack([softmax_cross_entropy(own, label, weight) for own in logits])
    torch.testing.assert_close(both, single)
