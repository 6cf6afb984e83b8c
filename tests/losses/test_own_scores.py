"""Scores with own items, computed with and without a copy of the items' vectors."""

import numpy as np
import pytest
import torch

from tests.helpers.losses import make_batch
from twotower.layers.batched import is_batched
from twotower.losses.bce import BCE
from twotower.losses.gbce import GBCE
from twotower.losses.own_scores import MANY, own_scores
from twotower.losses.softmax import Softmax
from twotower.types import Towers

NUM_ROWS, NUM_ITEMS, DIM = 6, 15, 4


def make_towers(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randn(n, DIM, generator=generator) for n in (NUM_ROWS, NUM_ITEMS))
    return Towers(user.to(dtype).requires_grad_(), item.to(dtype).requires_grad_())


def draw(num):
    return torch.randint(NUM_ITEMS, (NUM_ROWS, num), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num", [1, MANY - 1, MANY, 3 * MANY])
def test_they_are_inner_products(num):
    (user, item, *_), row = make_towers(), draw(num)
    weight = torch.randn(NUM_ROWS, num, generator=torch.Generator().manual_seed(2)).double()
    expected = torch.stack(
        [torch.stack([user[b] @ item[i] for i in own]) for b, own in enumerate(row)]
    )
    found = own_scores(user, item, row)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((weight * x).sum(), (user, item)) for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num", [3, 2 * MANY])
@pytest.mark.parametrize("correct_log_q", [False, True])
def test_softmax_over_own_negatives_in_numpy(num, correct_log_q):
    """Every draw is a column, but those that are the positive itself (accidental hits)."""
    towers, negative = make_towers(), draw(num)
    positive = [2, 14, 0, 0, 7, 5]
    log_q = np.log(np.linspace(0.01, 0.3, NUM_ITEMS)) if correct_log_q else np.zeros(NUM_ITEMS)
    user, item = (x.detach().numpy() for x in towers[:2])
    total = 0.0
    negative[2, 1] = positive[2]
    for row, own in enumerate(positive):
        drawn = [n for n in negative[row].tolist() if n != own]
        logit = item[[own, *drawn]] @ user[row] / 0.4 - log_q[[own, *drawn]]
        total += np.log(np.exp(logit - logit[0]).sum())
    batch = make_batch(positive, negative.tolist(), num_items=NUM_ITEMS)
    batch = batch._replace(log_q=torch.tensor(log_q))
    loss = Softmax(0.4, correct_log_q)(towers, batch)
    assert loss.item() == pytest.approx(total / NUM_ROWS, abs=1e-10)


@pytest.mark.parametrize("loss", [BCE(0.5), GBCE(0.5, 0.75), Softmax(0.5, True)], ids=repr)
def test_many_negatives_in_a_compiled_step_and_in_a_pass_of_runs(loss):
    towers = make_towers()
    batch = make_batch([1] * NUM_ROWS, draw(2 * MANY).tolist(), num_items=NUM_ITEMS)
    plain = loss(towers, batch)
    gradients = torch.autograd.grad(plain, towers[:2])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)

    def step(user, item):
        assert is_batched(user)
        return loss(Towers(user, item), batch)

    runs = [x.detach()[None].requires_grad_() for x in towers[:2]]
    of_runs = torch.autograd.grad(torch.vmap(step)(*runs).sum(), runs)
    torch.testing.assert_close([x[0] for x in of_runs], list(gradients), rtol=0, atol=1e-12)
    compiled = torch.compile(lambda t: loss(t, batch), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(towers), plain, rtol=0, atol=1e-12)


def test_many_negatives_without_gradients():
    (user, item, *_), row = make_towers(), draw(MANY)
    expected = own_scores(user, item, row)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(own_scores(user, item, row), expected.detach())


def test_many_negatives_are_float32_under_autocast():
    towers, row = make_towers(torch.float32), draw(MANY)
    exact = own_scores(*towers[:2], row)
    exact_gradients = torch.autograd.grad(exact.square().sum(), towers[:2])
    with torch.autocast("cpu", torch.bfloat16):
        found = own_scores(*towers[:2], row)
    assert torch.equal(found, exact)
    gradients = torch.autograd.grad(found.square().sum(), towers[:2])
    torch.testing.assert_close(gradients, exact_gradients)
    half = [x.detach().bfloat16().requires_grad_() for x in towers[:2]]
    own_scores(*half, row).sum().backward()
    assert half[0].grad.dtype == half[1].grad.dtype == torch.bfloat16
