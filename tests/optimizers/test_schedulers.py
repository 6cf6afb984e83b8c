"""Learning rates over the steps, against numbers worked out by hand."""

import pytest
import torch

from tests.helpers.runs import SMALL, logged
from twotower.errors import UserError
from twotower.layers.embedding_table import table
from twotower.optimizers.row_sparse import LazyAdam, RowwiseAdagrad
from twotower.optimizers.schedulers import cosine, linear_warmup

WARMUP = [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]  # quarters of 8
# 2 steps of warm-up, then shares (1 + cos(0, π/4, π/2, 3π/4, π)) / 2 between 8 and 0.25 * 8
COSINE = [4.0, 8.0, 8.0, 7.121320, 5.0, 2.878680, 2.0]

ROWS = {
    "lr": 0.1,
    "table_lr": 4.0,
    "betas": [0.9, 0.99],
    "eps": 1e-8,
    "weight_decay": 0.0,
    "min_rows": 5,
}


def rates(make, num_steps, optimizer=None):
    """The learning rates of each step, of the last group of parameters."""
    optimizer = optimizer or torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=8.0)
    scheduler, found = make(optimizer), []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_warmup_by_hand():
    assert rates(lambda optimizer: linear_warmup(optimizer, None, 4), 6) == pytest.approx(WARMUP)


def test_cosine_by_hand():
    assert rates(lambda optimizer: cosine(optimizer, 7, 2, 0.25), 7) == pytest.approx(COSINE)
    without = rates(lambda optimizer: cosine(optimizer, 3, 0, 0.0), 5)
    assert without == pytest.approx([8.0, 4.0, 0.0, 0.0, 0.0])  # and never up again


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad])
def test_schedules_scale_table_lr(optimizer):
    """Rows move by ``lr``, so a step at rate 0 leaves them where they are."""
    weight, dense = table(6, 3), torch.nn.Parameter(torch.ones(3))
    rows = optimizer([weight, dense], **ROWS)
    scheduler = cosine(rows, 2, 0, 0.0)
    assert [group["lr"] for group in rows.param_groups] == [0.1, 4.0]
    before = weight.detach().clone()
    for moves in (True, False):
        rows.zero_grad()
        torch.nn.functional.embedding(torch.tensor([2]), weight, sparse=True).sum().backward()
        rows.step()
        assert torch.equal(before, weight) is not moves
        before = weight.detach().clone()
        scheduler.step()
    assert [group["lr"] for group in rows.param_groups] == [0.0, 0.0]


def test_impossible_schedules_are_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=8.0)
    with pytest.raises(UserError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        cosine(optimizer, None, 0, 0.0)
    with pytest.raises(UserError, match=r"scheduler\.warmup_steps=7 must be below the 7 steps"):
        cosine(optimizer, 7, 7, 0.0)
    with pytest.raises(UserError, match=r"scheduler\.last_share"):
        cosine(optimizer, 7, 0, 1.5)
    with pytest.raises(UserError, match=r"scheduler\.warmup_steps"):
        linear_warmup(optimizer, None, 0)


def test_a_run_follows_its_schedule_and_logs_it(script):
    """Steps are the optimizer's: 60 batches of three epochs make 30, two batches each."""
    chosen = ("scheduler=cosine", "optimizer.lr=0.008", "+trainer.accumulate_grad_batches=2")
    run = script("train", *SMALL, *chosen, "trainer.max_epochs=3", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    rows = [float(row["lr-AdamW"]) for row in logged(script, "run") if row.get("lr-AdamW")]
    checkpoint = torch.load(script.folder / "run/checkpoints/last.ckpt", weights_only=True)
    num_steps = checkpoint["global_step"]
    assert rows[0] == pytest.approx(0.008) and rows == sorted(rows, reverse=True)
    assert rows[-1] == pytest.approx(0.0, abs=1e-9) and len(rows) == num_steps
    assert rows[(num_steps - 1) // 2] == pytest.approx(0.004, rel=0.1)  # half of it, half way
    assert script.metrics("run")["settings"]["scheduler.last_share"] == 0.0


@pytest.mark.parametrize(
    "chosen",
    [(), pytest.param(("scheduler=constant",), marks=pytest.mark.slow)],
    ids=["default", "constant"],
)
def test_a_constant_schedule_adds_nothing_to_a_run(chosen, script):
    """No setting, column or fingerprint changes, so older records and checkpoints are equal."""
    run = script("train", *SMALL, "trainer.max_epochs=1", *chosen, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert not any("scheduler" in key for key in script.metrics("run")["settings"])
    assert not any(name.startswith("lr-") for name in logged(script, "run")[0])
    path = script.folder / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert "scheduler" not in checkpoint["twotower"]["config"]
    more = script("train", f"ckpt_path={path}", *chosen, "trainer.max_epochs=2")
    assert more.returncode == 0, more.stderr
    other = script("train", f"ckpt_path={path}", "scheduler=cosine", "trainer.max_epochs=3")
    assert other.returncode == 1 and "scheduler=constant; start a new run" in other.stderr


def test_cosine_needs_a_last_step(script):
    chosen = ("scheduler=cosine", "trainer.max_epochs=-1", "hydra.run.dir=run")
    run = script("train", *SMALL, *chosen)
    assert run.returncode == 1 and "scheduler=cosine needs the number of steps" in run.stderr
    assert run.stderr.count("error:") == 1 and "Traceback" not in run.stderr
