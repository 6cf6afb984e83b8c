"""The lines of a training: one per epoch, why it stopped, and the metric of the progress bar."""

from types import SimpleNamespace

import pytest
import torch

from twotower.training.callbacks import EarlyStopping
from twotower.training.progress import EpochLines, ProgressBar


def trainer(**given):
    values = {
        "checkpoint_callback": SimpleNamespace(monitor="val/ndcg@10", mode="max"),
        "callback_metrics": {},
        "callbacks": [],
        "current_epoch": 0,
        "global_step": 8,
        "is_global_zero": True,
        "max_epochs": 10,
        "max_steps": -1,
        "should_stop": False,
    }
    return SimpleNamespace(**{**values, **given})


def epoch(lines, loss, value, **given):
    metrics = {"val/ndcg@10": torch.tensor(value)}
    running = trainer(callback_metrics=metrics, **given)
    lines.on_train_epoch_start(running, None)
    for step in (loss - 0.5, loss + 0.5):
        lines.on_train_batch_end(running, None, {"loss": torch.tensor(step)}, None, 0)
    lines.on_train_epoch_end(running, None)
    return running


def test_an_epoch_is_one_line_with_the_mean_loss_and_the_best_so_far(capsys):
    lines = EpochLines()
    epoch(lines, 2.0, 0.25, current_epoch=0)
    epoch(lines, 1.5, 0.125, current_epoch=1)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch  1/10  loss 2.0000  val/ndcg@10 0.2500  best 0.2500 (epoch 1)")
    assert second.startswith("epoch  2/10  loss 1.5000  val/ndcg@10 0.1250  best 0.2500 (epoch 1)")
    assert second.endswith("left") and max(map(len, (first, second))) <= 100


def test_the_best_epoch_of_a_loss_is_the_lowest_and_survives_a_restart(capsys):
    lines, lowest = EpochLines(), SimpleNamespace(monitor="val/ndcg@10", mode="min")
    epoch(lines, 2.0, 0.25, checkpoint_callback=lowest)
    epoch(lines, 2.0, 0.125, current_epoch=1, checkpoint_callback=lowest)
    resumed = EpochLines()
    resumed.load_state_dict(lines.state_dict())
    epoch(resumed, 2.0, 0.5, current_epoch=2, checkpoint_callback=lowest)
    assert "best 0.1250 (epoch 2)" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "all epochs are done"),
        ({"max_steps": 8}, "trainer.max_steps=8 are done"),
        ({"waited": 3}, "val/ndcg@10 has not risen for 3 epochs"),
    ],
)
def test_the_end_says_why(given, reason, capsys):
    stopping = EarlyStopping(monitor="val/ndcg@10", mode="max", patience=3)
    stopping.wait_count = given.pop("waited", 0)
    EpochLines().on_train_end(trainer(callbacks=[stopping], **given), None)
    assert capsys.readouterr().out == f"training ends: {reason}\n"


def test_the_bar_shows_the_loss_and_what_chooses_the_checkpoint():
    metrics = {"train/loss": 1.0, "val/ndcg@10": 0.5, "val/mrr": 0.25}
    found = ProgressBar().get_metrics(trainer(callback_metrics=metrics), None)
    assert found == {"loss": "1.0000", "ndcg@10": "0.5000"}
    without = trainer(callback_metrics=metrics, checkpoint_callback=None)
    assert ProgressBar().get_metrics(without, None) == {"loss": "1.0000"}
