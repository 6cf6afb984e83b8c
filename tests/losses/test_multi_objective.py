"""MVKE's loss: each objective from its own behaviours, by hand."""

import math

import pytest
import torch

from tests.helpers.losses import make_batch
from twotower.errors import UserError
from twotower.losses.multi_objective import MultiObjective
from twotower.types import Schema, Towers

SCHEMA = Schema((), (), 3, 3, 0)


def make(behaviours=((0,), (1, 2)), weights=(1.0, 0.5)):
    return MultiObjective(SCHEMA, [list(b) for b in behaviours], list(weights), 2.0)


def softplus(x):
    return math.log1p(math.exp(x))


def example(behaviour):
    """Users 2, 4, 6 (one dimension), temperature 2.

    Items 1, 2 for objective 0 and -1, 3 for objective 1.
    """
    items = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [3.0]])
    towers = Towers(torch.tensor([[2.0], [4.0], [6.0]]), items[0], item_by_objective=items)
    batch = make_batch([0, 0, 1], [[1], [1], [0]], num_items=2)
    return towers, batch._replace(behaviour=None if behaviour is None else torch.tensor(behaviour))


def test_by_hand():
    output = make()(*example([0, 1, 2]))
    # objective 0, row 0: scores 1 * 2 / 2 = 1 and 2 * 2 / 2 = 2: two pairs
    first = (softplus(-1) + softplus(2)) / 2
    # objective 1, rows 1 and 2: 4 * -1 / 2 = -2 and 4 * 3 / 2 = 6;
    # 6 * 3 / 2 = 9 and 6 * -1 / 2 = -3: four pairs
    second = (softplus(2) + softplus(6) + softplus(-9) + softplus(-3)) / 4
    assert output.terms["objective_0"].item() == pytest.approx(first, rel=1e-5)
    assert output.terms["objective_1"].item() == pytest.approx(second, rel=1e-5)
    assert output.total.item() == pytest.approx(first + 0.5 * second, rel=1e-5)


def test_several_negatives_count_each():
    towers, batch = example([0, 1, 1])
    batch = batch._replace(negative=batch.negative.repeat(1, 2))
    first = (softplus(-1) + 2 * softplus(2)) / 3  # row 0: three pairs
    assert make()(towers, batch).terms["objective_0"].item() == pytest.approx(first, rel=1e-5)


def test_behaviours_that_the_data_do_not_have_are_refused():
    with pytest.raises(
        UserError, match=r"loss\.behaviours=\[\[0\], \[7\]\]: the data have behaviours 0 to 1"
    ):
        MultiObjective(SCHEMA._replace(num_behaviours=2), [[0], [7]], [1.0, 1.0], 1.0)


def test_a_batch_without_an_objective_s_behaviours_adds_zero():
    output = make()(*example([0, 0, 0]))
    assert (
        output.terms["objective_1"].item() == 0
        and output.total.item() == output.terms["objective_0"].item()
    )


def test_models_data_and_negatives_that_do_not_fit_are_refused():
    towers, batch = example([0, 1, 2])
    with pytest.raises(UserError, match="loss=plain"):
        make()(*example(None))
    with pytest.raises(UserError, match="negatives=uniform"):
        make()(towers, batch._replace(negative=None))
    with pytest.raises(UserError, match="model=mvke"):
        make()(towers._replace(item_by_objective=()), batch)
    with pytest.raises(UserError, match=r"loss\.behaviours"):
        make(weights=(1.0,))
    for behaviours in ((), ((0,), ())):
        with pytest.raises(UserError, match=r"loss\.behaviours"):
            make(behaviours=behaviours, weights=(1.0,) * len(behaviours))
