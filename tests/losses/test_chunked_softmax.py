"""The softmax in chunks of rows equals the plain one, in bounded memory."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.losses import make_batch
from twotower.errors import UserError
from twotower.losses.softmax import Softmax
from twotower.types import Towers

NUM_ROWS, NUM_ITEMS, DIM = 11, 29, 5


def make_towers(scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randn(n, DIM, generator=generator) for n in (NUM_ROWS, NUM_ITEMS))
    return Towers(*((scale * x).to(dtype).requires_grad_() for x in (user, item)))


def draw_batch(drawn="some", log_q=False, excluded=False):
    generator = torch.Generator().manual_seed(1)
    num_draws = torch.randint(0, 4, (NUM_ITEMS,), generator=generator)
    if drawn == "corpus":
        num_draws = torch.ones_like(num_draws)
    elif drawn == "padded":  # rows of fixed shapes that stand for no item
        num_draws[-4:] = 0
    batch = make_batch(
        torch.randint(NUM_ITEMS - 4, (NUM_ROWS,), generator=generator).tolist(),
        num_draws=num_draws.tolist(),
        num_items=NUM_ITEMS,
        log_q=(-5 * torch.rand(NUM_ITEMS, generator=generator)).tolist() if log_q else None,
    )
    if not excluded:
        return batch
    mask = torch.rand(NUM_ROWS, NUM_ITEMS, generator=generator) < 0.3  # some positives among them
    return batch._replace(excluded=mask)


def loss_and_gradients(towers, batch, correct_log_q, chunk, weight=3.0):
    loss = Softmax(0.4, correct_log_q, chunk)(towers, batch)
    return loss, *torch.autograd.grad(weight * loss, towers[:2])


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("correct_log_q", [False, True])
@pytest.mark.parametrize("drawn", ["some", "corpus", "padded"])
def test_it_is_the_plain_softmax(drawn, correct_log_q, excluded):
    towers, batch = make_towers(), draw_batch(drawn, correct_log_q, excluded)
    plain = loss_and_gradients(towers, batch, correct_log_q, None)
    for chunk in (1, 4, 10, NUM_ROWS, 1000):  # most do not divide the rows
        found = loss_and_gradients(towers, batch, correct_log_q, chunk)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-10)


def test_gradients_by_hand():
    # User 1, items 1, 2, 3, 4 of which item 3 was not drawn and item 2 twice; positive 0; scores
    # over temperature 2 are .5, 1, -, 2: weights e^.5, 2 e, 0, e^2, and p = w / sum.
    towers = Towers(
        torch.ones(1, 1, requires_grad=True),
        torch.tensor([[1.0], [2.0], [3.0], [4.0]], requires_grad=True),
    )
    batch = make_batch([0], num_draws=[5, 2, 0, 1], num_items=4)  # a positive counts once
    weight = [math.exp(0.5), 2 * math.exp(1), 0, math.exp(2)]
    p = [w / sum(weight) for w in weight]
    loss = Softmax(2.0, False, chunk=1)(towers, batch)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(p[0]))
    expected = [(p[0] - 1) / 2, p[1] / 2, 0, p[3] / 2]  # user / temperature = .5
    assert towers.item.grad.flatten().tolist() == pytest.approx(expected)
    of_user = (1 * (p[0] - 1) + 2 * p[1] + 4 * p[3]) / 2
    assert towers.user.grad.item() == pytest.approx(of_user)


def test_scores_far_apart_have_a_finite_loss():
    """In float32 the positive's probability is 0 here; its logarithm is not computed from it."""
    towers, batch = make_towers(30.0, torch.float32), draw_batch("corpus")
    plain = loss_and_gradients(towers, batch, False, None)
    assert plain[0] > 200
    found = loss_and_gradients(towers, batch, False, 4)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


def test_autocast_computes_in_float32():
    towers, batch = make_towers(dtype=torch.float32), draw_batch()
    exact = loss_and_gradients(towers, batch, False, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradients(towers, batch, False, 4)
    assert all(torch.equal(*pair) for pair in zip(found, exact, strict=True))
    half = Towers(*(x.detach().bfloat16().requires_grad_() for x in towers[:2]))
    loss, *gradients = loss_and_gradients(half, batch, False, 4)
    assert loss.dtype == torch.float32 and {g.dtype for g in gradients} == {torch.bfloat16}


def test_there_is_no_second_derivative():
    towers, weight = make_towers(), torch.ones((), requires_grad=True)
    loss = weight * Softmax(1.0, False, 4)(towers, draw_batch())
    (gradient,) = torch.autograd.grad(loss, towers.user, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.gpu
def test_a_gpu_has_the_same_loss_and_gradients():
    towers, batch = make_towers(), draw_batch(excluded=True, log_q=True)
    expected = loss_and_gradients(towers, batch, True, None)
    moved = Towers(*(x.detach().cuda().requires_grad_() for x in towers[:2]))
    tensors = {k: v.cuda() for k, v in batch._asdict().items() if isinstance(v, torch.Tensor)}
    found = loss_and_gradients(moved, batch._replace(**tensors), True, 4)
    torch.testing.assert_close([x.cpu() for x in found], list(expected), rtol=0, atol=1e-10)


class Largest(TorchDispatchMode):
    """Records the size of the largest result."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.untyped_storage().nbytes() // result.itemsize)
        return result


@pytest.mark.parametrize("drawn", ["corpus", "some"])
def test_the_logits_are_never_whole(drawn):
    sizes = {}
    for chunk in (None, 3):
        with Largest() as largest:
            loss_and_gradients(make_towers(), draw_batch(drawn), True, chunk)
        sizes[chunk] = largest.numel
    assert sizes[None] >= NUM_ROWS * NUM_ITEMS
    assert sizes[3] <= max(3, DIM) * NUM_ITEMS


def test_a_compiled_step_and_a_pass_of_runs_compute_all_logits():
    towers, batch = make_towers(), draw_batch(excluded=True)
    loss = Softmax(0.4, False, 4)
    plain = Softmax(0.4, False)(towers, batch)
    torch._dynamo.reset()
    compiled = torch.compile(lambda t: loss(t, batch), backend="eager", fullgraph=True)
    assert torch.equal(compiled(towers), plain)
    two = Towers(*(torch.stack([x.detach(), 2 * x.detach()]) for x in towers[:2]))

    def step(user, item):
        return loss(Towers(user, item), batch)

    torch.testing.assert_close(torch.vmap(step)(*two[:2])[0], plain)


def test_a_chunk_has_rows():
    with pytest.raises(UserError, match=r"loss\.task\.chunk must be a finite number >= 1, got 0"):
        Softmax(1.0, False, 0)
