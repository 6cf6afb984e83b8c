"""The comparison with single runs at the start finds what is wrong, and leaves no trace."""

import copy
import gc
import weakref

import pytest
import torch

from tests.helpers.fused import CASES, DAT, DROPOUT, LAMBDAS, Run, make_fused
from twotower.training.fused import engine, proof
from twotower.training.fused.recording import Seeds, plain_step

ALL = {**CASES, "dropout": ((*DAT, *DROPOUT), LAMBDAS)}


def make(world, case, dtype=torch.float32):
    common, settings = ALL[case]
    runs = [Run(world, seed, *common, *own, dtype=dtype) for seed, *own in settings]
    return runs, make_fused(runs)


@pytest.mark.parametrize("case", ALL)
def test_right_steps_are_proved_without_a_trace(world, case):
    runs, fused = make(world, case)
    fused.train([[runs[0].indices[step]] * len(fused.seeds) for step in range(3)])
    before, generator = copy.deepcopy([run.state() for run in runs]), torch.get_rng_state()
    assert proof.prove(fused) is None
    assert torch.equal(torch.get_rng_state(), generator)
    after = [run.state() for run in runs]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_an_epoch_may_be_shorter_than_the_proof(world):
    runs = [Run(world, seed, *DAT, dtype=torch.float32) for seed in (0, 1)]
    for run in runs:
        run.data.batch_size = 300  # two batches, the last one smaller
    assert proof.prove(make_fused(runs)) is None


def without_settings(fused, monkeypatch):
    fused.numbers.clear()  # all runs have the weights of the first one's losses


def fast(fused, monkeypatch):
    parts = fused.optimizer._parts
    fused.optimizer._parts = [part._replace(rate=1.1 * part.rate) for part in parts]


def unseeded(fused, monkeypatch):
    def step(parts, position, seeds):
        return plain_step(parts, position, Seeds([1] * len(seeds.batches), None))

    monkeypatch.setattr(engine, "plain_step", step)


def failing(fused, monkeypatch):
    def losses(batch):
        raise RuntimeError("no rule for batches of frobnicate\nstack")

    fused.losses = losses


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (without_settings, "the loss of run 1 is "),
        (fast, "the weights of run 0 differ by 0.1"),
        (unseeded, "the weights of run 0 differ by 0.2"),
        (failing, "a step fails: RuntimeError: no rule for batches of frobnicate"),
    ],
)
def test_wrong_steps_are_found(world, monkeypatch, broken, reason):
    runs, fused = make(world, "dat")
    before = copy.deepcopy([run.state() for run in runs])
    broken(fused, monkeypatch)
    assert proof.prove(fused).startswith(reason)
    after = [run.state() for run in runs]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_failed_proof_frees_the_weights(world, monkeypatch):
    _, fused = make(world, "dat")
    failing(fused, monkeypatch)
    gc.collect()
    gc.disable()  # a cycle of references would keep a GPU's memory
    try:
        proof.prove(fused)
        left = weakref.ref(fused)
        del fused
        assert left() is None
    finally:
        gc.enable()


def test_wrong_replays_are_found_under_dropout(world):
    _, fused = make(world, "dropout")

    class Recorder:
        def step(self, parts, position, seeds):
            return plain_step(parts, position, Seeds([0] * len(seeds.batches), None))

    fused.recorder = Recorder()
    assert proof.prove(fused).startswith("the loss of run 0 is")
