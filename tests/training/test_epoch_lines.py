"""The lines of a training: one for each epoch, and why it stopped."""

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from twotower.training import epoch_lines
from twotower.training.callbacks import EarlyStopping
from twotower.training.epoch_lines import EpochLines

STEPS = 8


def trainer(**given):
    batches = SimpleNamespace(current=SimpleNamespace(ready=3))
    values = {
        "checkpoint_callback": SimpleNamespace(monitor="val/ndcg@10", mode="max"),
        "callback_metrics": {},
        "callbacks": [],
        "current_epoch": 0,
        "estimated_stepping_batches": 10 * STEPS,
        "train_dataloader": SimpleNamespace(num_passed=1),
        "fit_loop": SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=batches)),
        "global_step": 0,
        "is_global_zero": True,
        "max_epochs": 10,
        "max_steps": -1,
        "num_training_batches": STEPS,
        "sanity_checking": False,
        "should_stop": False,
    }
    return SimpleNamespace(**{**values, **given})


class Moments:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    moments = Moments()
    monkeypatch.setattr(epoch_lines, "time", moments)
    return moments


def epoch(lines, clock, number, loss, value=None, seconds=2.0, **given):
    """Epoch ``number``, from 1, with a validation if there is a value."""
    metrics = {} if value is None else {"val/ndcg@10": torch.tensor(value)}
    running = trainer(callback_metrics=metrics, current_epoch=number - 1, **given)
    running.global_step = (number - 1) * STEPS
    if number == 1:
        lines.on_train_start(running, None)
    lines.on_train_epoch_start(running, None)
    for step in (loss - 0.5, loss + 0.5):
        lines.on_train_batch_end(running, None, {"loss": torch.tensor(step)}, None, 0)
    running.global_step += STEPS
    clock.now += seconds
    if value is not None:
        lines.on_validation_end(running, None)
    lines.on_train_epoch_end(running, None)
    return running


def test_an_epoch_is_a_line_with_the_mean_loss_and_the_best_so_far(clock, capsys):
    lines = EpochLines()
    epoch(lines, clock, 1, 2.0, 0.25)
    epoch(lines, clock, 2, 1.5, 0.125)
    epoch(lines, clock, 10, 1.5, 0.5)
    assert capsys.readouterr().out.splitlines() == [
        "epoch  1/10  loss 2.000  ndcg@10 .2500 (best)  2.0 s  ~18 s left",
        "epoch  2/10  loss 1.500  ndcg@10 .1250 (best .2500 at 1)  2.0 s  ~16 s left",
        "epoch 10/10  loss 1.500  ndcg@10 .5000 (best)  2.0 s",
    ]


def test_a_line_fits_80_columns_for_100_epochs_of_hours(clock, capsys):
    lines, given = EpochLines(), {"max_epochs": 100, "estimated_stepping_batches": 100 * STEPS}
    for number in (1, 55, 99):
        epoch(lines, clock, number, 11.2345, 0.0459 - number / 9999, 5399.0 * number, **given)
    out = capsys.readouterr().out.splitlines()
    assert out[1].endswith("(best .0458 at 1)  82 h  3 days left") or max(map(len, out)) <= 80
    assert max(map(len, out)) <= 80


def test_an_epoch_without_validation_does_not_repeat_the_last_one(clock, capsys):
    lines = EpochLines()
    epoch(lines, clock, 1, 2.0, 0.25)
    epoch(lines, clock, 2, 1.5)
    assert (
        capsys.readouterr()
        .out.splitlines()[1]
        .startswith("epoch  2/10  loss 1.500  best .2500 at 1  2.0 s")
    )


def test_without_any_validation_the_last_epoch_is_tested(clock, capsys):
    lines = EpochLines()
    running = epoch(lines, clock, 1, 2.0, checkpoint_callback=None)
    lines.on_train_end(running, None)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "epoch  1/10  loss 2.000  2.0 s  ~18 s left"
    assert second.endswith("; no validation chooses an epoch: the last is tested")


def test_the_best_epoch_of_a_loss_is_the_lowest_and_survives_a_restart(clock, capsys):
    lines, lowest = EpochLines(), SimpleNamespace(monitor="val/ndcg@10", mode="min")
    epoch(lines, clock, 1, 2.0, 0.25, checkpoint_callback=lowest)
    epoch(lines, clock, 2, 2.0, 0.125, checkpoint_callback=lowest)
    resumed = EpochLines()
    resumed.load_state_dict(lines.state_dict())
    epoch(resumed, clock, 3, 2.0, 0.5, checkpoint_callback=lowest)
    assert "(best .1250 at 2)" in capsys.readouterr().out.splitlines()[-1]


def test_a_run_resumed_within_an_epoch_has_the_seconds_of_this_process(clock, capsys):
    """Lightning does not start that epoch again."""
    lines, running = EpochLines(), trainer(current_epoch=2, global_step=20)
    lines.on_train_start(running, None)
    lines.on_train_batch_end(running, None, {"loss": torch.tensor(1.0)}, None, 0)
    clock.now += 3
    running.global_step = 24
    lines.on_train_epoch_end(running, None)
    assert (
        capsys.readouterr().out == "epoch  3/10  loss 1.000  3.0 s  ~42 s left\n"
    )  # 56 steps, 4 in 3 s


def test_a_long_epoch_has_lines_of_its_own(clock, capsys):
    lines, running = EpochLines(), trainer(num_training_batches=40_000)
    lines.on_train_start(running, None)
    for _ in range(3):
        clock.now += epoch_lines.LINE_EVERY_S / 2 + 1
        lines.on_train_batch_end(running, None, {"loss": torch.tensor(1.0)}, None, 0)
    assert capsys.readouterr().out == "epoch  1/10: step 3 of 40,000  loss 1.000\n"


def test_only_the_first_process_prints(clock, capsys):
    lines = EpochLines()
    running = epoch(lines, clock, 1, 2.0, 0.25, is_global_zero=False)
    lines.on_train_end(running, None)
    assert capsys.readouterr().out == "" and lines.best == 0.25


def patience(mode):
    stopping = EarlyStopping(monitor="val/ndcg@10", mode=mode, patience=3)
    stopping.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED
    return stopping


def timer():
    timer = Timer("00:00:00:01")
    timer._offset = 2
    return timer


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "trainer.max_epochs=10 is reached"),
        ({"max_steps": 8}, "trainer.max_steps=8 is reached"),
        ({"callbacks": [patience("max")]}, "ndcg@10 has not risen for 3 validations"),
        ({"callbacks": [patience("min")]}, "ndcg@10 has not fallen for 3 validations"),
        ({"callbacks": [timer()]}, "trainer.max_time is reached"),
        ({"max_epochs": -1, "should_stop": True}, "a callback has stopped it"),
    ],
)
def test_the_end_says_why_and_names_the_best_epoch(given, reason, clock, capsys):
    lines = EpochLines()
    running = epoch(lines, clock, 1, 2.0, 0.25, **given)
    lines.on_train_end(running, None)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"training ends: {reason}; best .2500 at epoch 1"
