"""The average of the weights: its value, where it is used, and that it is off by default."""

import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.errors import UserError
from twotower.training.average import Average

SHORT = (*SMALL, "trainer.max_epochs=1", "+trainer.limit_train_batches=3")


def test_validation_and_kept_weights_are_of_the_average(script, monkeypatch):
    """``average = decay * average + (1 - decay) * weights``, and starts as the first weights."""
    weights, validated = [], []

    def after_step(self, trainer, pl_module, *args):
        update(self, trainer, pl_module, *args)
        weights.append({name: p.clone() for name, p in pl_module.state_dict().items()})

    def validate(self, trainer, pl_module):
        swap(self, trainer, pl_module)
        validated.append({name: p.clone() for name, p in pl_module.state_dict().items()})

    update, swap = Average.on_train_batch_end, Average.on_validation_epoch_start
    monkeypatch.setattr(Average, "on_train_batch_end", after_step)
    monkeypatch.setattr(Average, "on_validation_epoch_start", validate)
    run = script("train", *SHORT, "callbacks.average.decay=0.75", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    first, second, third = weights
    kept = script.weights("run")
    for name, value in kept.items():
        average = 0.75 * (0.75 * first[name] + 0.25 * second[name]) + 0.25 * third[name]
        torch.testing.assert_close(value, average, rtol=0, atol=1e-6)
        torch.testing.assert_close(validated[0][name], average, rtol=0, atol=1e-6)
    assert any(not torch.equal(kept[name], third[name]) for name in kept)


def test_without_a_decay_nothing_is_averaged(script, monkeypatch):
    monkeypatch.setattr(Average, "_swap_models", None)  # would fail if it were called
    run = script("train", *SHORT, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    saved = torch.load(script.folder / "run/checkpoints/last.ckpt", weights_only=True)
    assert not [key for key in saved["callbacks"] if key.startswith("Average")]
    assert "current_model_state" not in saved


@pytest.mark.parametrize("decay", [-0.1, 1, 2, float("nan")])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(UserError, match=r"callbacks\.average\.decay"):
        Average(decay)
