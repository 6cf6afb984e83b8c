"""Runs trained in one pass end with the weights that each has when it is trained alone."""

import copy

import pytest
import torch
from pytorch_lightning.plugins.precision import DoublePrecision
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.fused import (
    CASES,
    DAT,
    DROPOUT,
    LAMBDAS,
    NUM_STEPS,
    Run,
    assert_equal,
    make_fused,
    train_fused,
)
from twotower.errors import UserError
from twotower.optimizers.schedulers import cosine


@pytest.mark.parametrize("case", CASES)
def test_each_run_ends_as_it_does_alone(world, case):
    common, settings = CASES[case]
    alone = [Run(world, seed, *common, *own) for seed, *own in settings]
    together = [Run(world, seed, *common, *own) for seed, *own in settings]
    outputs = [run.train() for run in alone]
    total, terms = train_fused(together)
    for place, (one, fused) in enumerate(zip(alone, together, strict=True)):
        assert_equal(fused.state(), one.state())
        assert total[place].item() == pytest.approx(outputs[place].total.item(), abs=1e-9)
        for name, value in outputs[place].terms.items():
            assert terms[name][place].item() == pytest.approx(value.item(), abs=1e-9)


def test_weights_of_interactions(world):
    weighted = copy.copy(world)
    num = len(world.tables["interactions/item"])
    weight = 0.5 + (torch.arange(num) % 4) / 3
    weighted.tables = {**world.tables, "interactions/weight": weight}
    alone, together = ([Run(weighted, seed, *DAT, *own) for seed, *own in LAMBDAS] for _ in "ab")
    plain = Run(world, LAMBDAS[0][0], *DAT, *LAMBDAS[0][1:])
    train_fused(together)
    for one, fused in zip(alone, together, strict=True):
        one.train()
        assert_equal(fused.state(), one.state(), atol=1e-7)
    plain.train()
    with pytest.raises(AssertionError, match="not close"):
        assert_equal(plain.state(), alone[0].state(), atol=1e-3)


def test_a_run_goes_on_alone_and_together(world):
    """Its state is that of an ordinary run: 13 steps alone, 13 in one pass, 14 alone."""
    alone = [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS]
    mixed = [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS]
    for one, run in zip(alone, mixed, strict=True):
        one.train()
        run.train(0, 13)
    train_fused(mixed, 13, 26)
    for one, run, (seed, *own) in zip(alone, mixed, LAMBDAS, strict=True):
        last = Run(world, seed, *DAT, *own)
        last.load(run.state())
        last.train(26)
        assert_equal(last.state(), one.state())


def test_runs_may_have_made_different_numbers_of_steps(world):
    alone, together = ([Run(world, seed, *DAT) for seed in (0, 1)] for _ in range(2))
    for old, new in (alone, together):
        old.train(0, 13)
        new.indices = [*old.indices[:13], *new.indices]
    for run in alone:
        run.train(13, 26)
    train_fused(together, 13, 26)
    for one, fused in zip(alone, together, strict=True):
        assert_equal(fused.state(), one.state())


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_each_run_is_clipped_by_itself(world, algorithm):
    clip = (0.05 if algorithm == "norm" else 0.002, algorithm)
    alone, together, unclipped = (
        [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS] for _ in range(3)
    )
    for one, other in zip(alone, unclipped, strict=True):
        one.train(clip=clip)
        other.train()
    train_fused(together, clip=clip)
    for one, fused, other in zip(alone, together, unclipped, strict=True):
        assert_equal(fused.state(), one.state())
        with pytest.raises(AssertionError):
            assert_equal(fused.state(), other.state())


def test_learning_rates_follow_each_runs_scheduler(world):
    alone, together = ([Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS] for _ in range(2))
    for run in alone:
        run.train(schedule=cosine(run.optimizer, NUM_STEPS, 5, 0.1))
    schedules = [cosine(run.optimizer, NUM_STEPS, 5, 0.1) for run in together]
    train_fused(together, after_step=lambda: [schedule.step() for schedule in schedules])
    for one, fused in zip(alone, together, strict=True):
        assert_equal(fused.state(), one.state())


def test_the_context_of_the_trainer_is_that_of_model_and_loss(world):
    """In float64 tensors that a loss makes have the trainer's default type."""
    context = DoublePrecision().train_step_context
    alone, together = ([Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS] for _ in range(2))
    for run in alone:
        run.train(context=context)
    train_fused(together, context=context)
    for one, fused in zip(alone, together, strict=True):
        assert_equal(fused.state(), one.state())


def test_epochs_of_users(world):
    """Of positives drawn user by user, each seed has its own."""
    users = copy.copy(world)
    users.positives = "users"
    alone, together = ([Run(users, seed, *DAT, *own) for seed, *own in LAMBDAS] for _ in range(2))
    for run in alone:
        run.train()
    train_fused(together)
    for one, fused in zip(alone, together, strict=True):
        assert_equal(fused.state(), one.state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_does_not_depend_on_the_others(world, dtype):
    """To the last bit, if widths are multiples of 16: vector kernels round the rest otherwise."""
    wide = ("model.dim=16", "model.hidden_dims=[32]", "model.embedding_dim=16")
    states = []
    for others in ((0,), (2, 0), (0, 2, 0, 2)):
        settings = [LAMBDAS[place] for place in (*others, 1)]
        runs = [Run(world, seed, *DAT, *wide, *own, dtype=dtype) for seed, *own in settings]
        train_fused(runs, last=20)
        states.append(runs[-1].state())
    for state in states[1:]:
        torch.testing.assert_close(state["weights"], states[0]["weights"], rtol=0, atol=0)
        torch.testing.assert_close(state["optimizer"], states[0]["optimizer"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("model/history=gru", "cannot be trained in one pass: model/history=gru: recurrent"),
        ("optimizer=lazy_adam", "optimizer=LazyAdam: only Adam and AdamW"),
    ],
)
def test_what_cannot_be_fused_is_refused(world, setting, reason):
    runs = [Run(world, seed, "model=dat", setting) for seed in (0, 1)]
    with pytest.raises(UserError, match=reason):
        train_fused(runs, 0, 1)


class Count(TorchDispatchMode):
    """Counts the operations that reach the kernels; the rows of a tensor are no operation."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is not torch.ops.aten.select.int
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "case", ["dat", "transformer", "mind", "mvke", "fm", "mixed", "bce", "alignment over batches"]
)
def test_a_step_of_more_runs_has_no_more_operations(world, case):
    """An operation without a rule for batches would run once for each run."""
    common, settings = CASES[case]
    numbers = []
    for num_runs in (2, 5):
        own = [settings[0], *[settings[1]] * (num_runs - 1)]
        runs = [Run(world, 0, *common, *setting) for _, *setting in own]
        fused = make_fused(runs)
        batch = fused.batch(0, runs[0].indices[0].position)
        with Count() as count:
            fused.learn([batch])
        numbers.append(count.number)
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("drops", [False, True])
def test_each_run_draws_its_own_dropout(world, drops):
    runs = [Run(world, 0, *DAT, *(DROPOUT if drops else ())) for _ in range(2)]
    total, _ = train_fused(runs, 0, 5)
    assert torch.isfinite(total).all()
    assert (total[0] != total[1]).item() == drops


def spread(values):
    """Mean of draws, and its standard error."""
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def test_dropout_has_the_distribution_that_it_has_alone(world):
    """150 draws of the loss of one batch; a rate that is wrong by a third would be seen."""
    num_draws = 150

    def setting(rate):
        return *DAT, f"model.dropout={rate}", "model.last_activation=none", "model.normalize=false"

    def alone(rate):
        run = Run(world, 0, *setting(rate))
        batch = run.data.train_batch(run.indices[0])
        with torch.no_grad():
            return torch.stack([run.task.step(batch).total for _ in range(num_draws)])

    runs = [Run(world, 0, *setting(0.3))]
    for _ in range(num_draws - 1):
        run = copy.copy(runs[0])
        run.task = copy.deepcopy(runs[0].task)
        run.optimizer = torch.optim.AdamW(run.task.model.parameters())
        runs.append(run)
    together, _ = train_fused(runs, last=1)
    assert len(together.unique()) == num_draws  # no two runs share a mask
    mean, error = spread(together)
    expected, error_alone = spread(alone(0.3))
    bound = 4 * (error**2 + error_alone**2) ** 0.5
    assert abs(mean - expected) < bound
    assert error == pytest.approx(error_alone, rel=0.3)
    for rate in (0.2, 0.4):
        assert abs(spread(alone(rate))[0] - expected) > bound
