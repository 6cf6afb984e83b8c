"""Speed: the same mathematics, compiled."""

import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.training.callbacks import compiled


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(
            (
                "loss.lambda3=1",
                "model.hidden_dims=[16]",
                "model.dropout=0.2",
                "model.id_dropout=0.1",
                "model.cold_ids=trained",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "loss/task=in_batch_softmax",
                "negatives.exclude_positives=true",
                "loss.lambda3=1",
                "model/history=transformer",
            ),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_compiled_run_is_the_run(script, overrides):
    """In float64, dropout included: sums in another order differ by rounding alone."""
    common = (*SMALL, *overrides, "trainer.max_epochs=1", "trainer.precision=64-true")
    for run, compile_ in (("plain", False), ("fast", True)):
        done = script(
            "train", *common, f"callbacks.speed.compile={compile_}", f"hydra.run.dir={run}"
        )
        assert done.returncode == 0, done.stderr
    plain, fast = script.weights("plain"), script.weights("fast")
    assert plain.keys() == fast.keys()
    for name, value in plain.items():
        assert torch.allclose(value, fast[name], rtol=0, atol=1e-9), name


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "/no/compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        compiled(abs)


def test_what_does_not_compile_is_refused(script):
    run = script(
        "train",
        *SMALL,
        "callbacks.speed.compile=true",
        "optimizer=lazy_adam",
        "optimizer.min_rows=0",
    )
    assert (
        run.returncode == 1
        and "does not work with row-sparse or sharded tables" in run.stderr
        and "Traceback" not in run.stderr
    )
    run = script("train", *SMALL, "callbacks.speed.float32_matmul=fast")
    assert (
        run.returncode == 1
        and "callbacks.speed.float32_matmul must be one of highest, high, medium" in run.stderr
    )
    run = script("train", *SMALL, "callbacks.speed.record=true", "trainer.accelerator=cpu")
    assert (
        run.returncode == 1
        and "recorded steps need an NVIDIA GPU, and the run is on cpu" in run.stderr
        and "Traceback" not in run.stderr
    )
    run = script("train", *SMALL, "callbacks.speed.record=yess")
    assert run.returncode == 1 and "callbacks.speed.record" in run.stderr


@pytest.mark.gpu
@pytest.mark.parametrize(
    "overrides",
    [("model=dat", "loss.lambda3=1"), ("model=two_tower", "loss/task=in_batch_softmax")],
)
def test_replayed_steps_are_the_run(script, overrides):
    """In float64 and without dropout, because its draws depend on the shape.

    The last batch of an epoch has a recording of its own.
    """
    common = (
        *SMALL,
        *overrides,
        "trainer.max_epochs=2",
        "trainer.precision=64-true",
        "trainer.accelerator=gpu",
    )
    for run, fast in (("plain", False), ("fast", True)):
        done = script("train", *common, f"callbacks.speed.record={fast}", f"hydra.run.dir={run}")
        assert done.returncode == 0, done.stderr
    plain, fast = script.weights("plain"), script.weights("fast")
    assert plain.keys() == fast.keys()
    for name, value in plain.items():
        assert torch.allclose(value, fast[name], rtol=0, atol=1e-9), name


def test_float32_matmul_reaches_torch(script):
    try:
        run = script("train", *SMALL, "callbacks.speed.float32_matmul=high", "trainer.max_steps=1")
        assert run.returncode == 0, run.stderr
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
