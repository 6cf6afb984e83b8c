"""In-batch softmax: by hand, and two processes against one."""

import math

import pytest
import torch

from tests.conftest import in_two_processes
from tests.helpers.losses import make_batch
from twotower.errors import UserError
from twotower.losses.in_batch_softmax import InBatchSoftmax
from twotower.types import Towers


def test_by_hand():
    """Three rows, two with the same item: an accidental hit.

    Users 1, 2, 1 (one dimension), items A = 1 and B = 3; rows' positives A, B, A; temperature 2;
    q = .25 and .5, so logQ adds log 4 to A and log 2 to B. Rows 0 and 2 have A once, as positive,
    and B; row 1 has B once and A twice.
    """
    towers = Towers(torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([[1.0], [3.0]]))
    batch = make_batch(
        [0, 1, 0], num_draws=[2, 1], num_items=2, log_q=[math.log(0.25), math.log(0.5)]
    )
    a, b = math.exp(0.5) * 4, math.exp(1.5) * 2  # row 0: e^(1*1/2) / .25, e^(1*3/2) / .5
    a1, b1 = math.exp(1.0) * 4, math.exp(3.0) * 2  # row 1
    expected = (2 * -math.log(a / (a + b)) - math.log(b1 / (b1 + 2 * a1))) / 3
    assert InBatchSoftmax(2.0, True, True)(towers, batch).item() == pytest.approx(
        expected, rel=1e-6
    )
    a, b, a1, b1 = math.exp(0.5), math.exp(1.5), math.exp(1.0), math.exp(3.0)
    expected = (2 * -math.log(a / (a + b)) - math.log(b1 / (b1 + 2 * a1))) / 3
    assert InBatchSoftmax(2.0, False, True)(towers, batch).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_excluded_items_are_no_negatives():
    towers = Towers(torch.ones(1, 1), torch.tensor([[1.0], [3.0], [2.0]]))
    batch = make_batch([0], num_draws=[1, 1, 1], num_items=3)._replace(
        excluded=torch.tensor([[True, True, False]])
    )
    # items 0 (the positive) and 2 are left
    expected = -math.log(math.exp(1) / (math.exp(1) + math.exp(2)))
    assert InBatchSoftmax(1.0, False, False)(towers, batch).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_own_negatives_are_refused():
    with pytest.raises(UserError, match="negatives=in_batch"):
        InBatchSoftmax(1.0, False, False)(
            Towers(torch.ones(1, 1), torch.ones(1, 1)), make_batch([0], [[0]])
        )


# Rows 0-2 belong to process 0, rows 3-5 to process 1; item 0 is in both.
POSITIVES = [3, 0, 3, 5, 0, 1]
EXCLUDED = {(4, 1)}  # (row, item); only items of the row's own process can be excluded


def step(rows):
    """The loss of some rows, as a data module would batch them, and its inputs."""
    generator = torch.Generator().manual_seed(0)
    user = torch.randn(6, 4, generator=generator)[rows].requires_grad_()
    table, log_q = (
        torch.randn(6, 4, generator=generator).requires_grad_(),
        torch.rand(6, generator=generator).log(),
    )
    distinct, row = torch.unique(torch.tensor(POSITIVES)[rows], return_inverse=True)
    excluded = torch.tensor([[(r, i) in EXCLUDED for i in distinct.tolist()] for r in rows])
    batch = make_batch(
        row.tolist(), num_draws=torch.bincount(row).tolist(), log_q=log_q[distinct].tolist()
    )
    batch = batch._replace(item_index=distinct, excluded=excluded, in_batch=True)
    loss = InBatchSoftmax(0.7, True, True)(Towers(user, table[distinct]), batch)
    loss.backward()
    return loss.detach(), user.grad, table.grad


def worker(rank):
    loss, user, table = step(list(range(3)) if rank == 0 else list(range(3, 6)))
    return rank, loss.item(), user.tolist(), table.tolist()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    found = in_two_processes(worker, tmp_path / "rendezvous")
    loss, user, table = step(list(range(6)))
    assert (found[0][1] + found[1][1]) / 2 == pytest.approx(loss.item(), rel=1e-5)
    both_users = torch.tensor(found[0][2] + found[1][2]) / 2  # each is a mean of half the rows
    torch.testing.assert_close(both_users, user)
    mean_table = (torch.tensor(found[0][3]) + torch.tensor(found[1][3])) / 2  # as DDP averages
    torch.testing.assert_close(mean_table, table)
