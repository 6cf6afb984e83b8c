"""Recorded steps on a GPU are those of plain runs.

In float64: in float32 Adam turns the rounding of a gradient near 0 into a whole step.
"""

import shutil

import pytest
import torch

from tests.helpers.fused import CASES, DAT, Run, assert_equal, make_fused, make_world, train_fused
from tests.helpers.runs import SMALL as SMALL_RUN

ATOL = 1e-7  # a recorded learning rate is a number of float32
RUN = (*SMALL_RUN, "model=dat", "trainer.max_epochs=2", "trainer.precision=64-true")
ON_A_GPU = pytest.param("cuda", marks=pytest.mark.gpu)
WHOLE = [pytest.param("cpu", marks=pytest.mark.slow), ON_A_GPU]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(params=["cpu", ON_A_GPU])
def made(request, world):
    """Makes runs on a device; on a CPU nothing is recorded."""

    def runs(case):
        common, settings = case
        return [Run(world, seed, *common, *own, device=request.param) for seed, *own in settings]

    runs.record = request.param == "cuda"
    return runs


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_recorded_runs_end_as_they_do_alone(world, case):
    common, settings = CASES[case]
    alone, together = (
        [Run(world, seed, *common, *own, device="cuda") for seed, *own in settings]
        for _ in range(2)
    )
    for run in alone:
        run.train()
    train_fused(together, record=True)
    for run, other in zip(together, alone, strict=True):
        assert_equal(run.state(), other.state(), ATOL)


def test_a_run_goes_on_recorded_and_plainly(made):
    """13 plain steps, an epoch; 14 recorded ones; the rest again plainly."""
    one = (DAT, [(0,)])
    (alone,), (run,), (recorded,), (last,) = (made(one) for _ in range(4))
    alone.train()
    run.train(0, 13)
    recorded.load(run.state())
    train_fused([recorded], 13, 27, record=made.record)
    last.load(recorded.state())
    last.train(27)
    assert_equal(last.state(), alone.state(), ATOL)


def test_a_new_learning_rate_reaches_recorded_steps(made):
    (alone,), (recorded,) = (made((DAT, [(0,)])) for _ in range(2))
    fused = make_fused([recorded], record=made.record)
    for step in range(10):
        for run in (alone, recorded):
            run.optimizer.param_groups[0]["lr"] = 0.001 * (1 + step)
        alone.train(step, step + 1)
        fused.train([[recorded.indices[step]]])
    assert_equal(recorded.state(), alone.state(), ATOL)


def run(script, *settings, flags=()):
    done = script("train", *flags, *RUN, *settings)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", WHOLE)
def test_a_sweep_in_one_pass_is_its_runs(script, device):
    where = f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"
    sweep = ("seed=0,1,2", "hydra/launcher=fused", "hydra.sweep.dir=sweep")
    run(script, *sweep, where, flags=["-m"])
    found = {}
    for path in script.folder.glob("sweep/**/metrics.json"):
        folder = str(path.parent.relative_to(script.folder))
        found[script.metrics(folder)["seed"]] = folder
    for seed in range(3):
        alone = f"alone{seed}"
        run(script, f"seed={seed}", "callbacks.speed.record=false", f"hydra.run.dir={alone}", where)
        ours, theirs = (script.weights(folder) for folder in (found[seed], alone))
        assert ours.keys() == theirs.keys()
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, rtol=1e-6, atol=1e-7, msg=name)
        values, expected = (script.metrics(folder)["test"] for folder in (found[seed], alone))
        assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("device", WHOLE)
def test_a_recorded_run_is_resumed(script, device):
    """After an epoch, once recorded and once plainly."""
    where = f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"
    records = ("true", "false") if device == "cuda" else ("auto", "false")
    run(script, "callbacks.speed.record=false", "hydra.run.dir=plain", where)
    first = (f"callbacks.speed.record={records[0]}", "trainer.max_epochs=1", where)
    run(script, *first, "hydra.run.dir=half")
    for record in records:
        own = f"resumed-{record}"
        shutil.copytree(script.folder / "half", script.folder / own)
        resumed = (f"ckpt_path={own}/checkpoints/last.ckpt", f"callbacks.speed.record={record}")
        run(script, *resumed, where)
        for name, weight in script.weights("plain").items():
            ours = script.weights(own)[name]
            torch.testing.assert_close(ours, weight, rtol=1e-6, atol=1e-7, msg=name)
