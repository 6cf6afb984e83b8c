"""The progress bar: one line of a terminal that says what runs, and nothing elsewhere."""

import io
from types import SimpleNamespace

import pytest
import torch

from twotower.training import progress
from twotower.wording import PlainConsole

METRICS = {"train/loss": torch.tensor(7.25), "val/ndcg@10": torch.tensor(0.5)}


def trainer(**given):
    values = {
        "checkpoint_callback": SimpleNamespace(monitor="val/ndcg@10"),
        "callback_metrics": METRICS,
        "current_epoch": 99,
        "max_epochs": 100,
        "max_steps": -1,
        "is_global_zero": True,
        "num_training_batches": 123_456,
        "num_val_batches": [3],
        "num_test_batches": [3],
        "train_dataloader": SimpleNamespace(num_passed=1),
    }
    return SimpleNamespace(**{**values, **given})


def made(monkeypatch, running, terminal=True):
    """A bar, and what it writes."""
    file = io.StringIO()
    options = {
        "file": file,
        "width": 80,
        "force_terminal": terminal,
        "force_interactive": terminal,
    }
    monkeypatch.setattr(progress, "PlainConsole", lambda: PlainConsole(**options))
    bar = progress.ProgressBar(20)
    bar.setup(running, None, "fit")
    return bar, file


def shown(bar):
    console = PlainConsole(file=io.StringIO(), width=80)
    console.print(bar._progress.get_renderable())
    return console.file.getvalue()


def cycle(bar, running):
    """An epoch with a validation, then a test."""
    bar.on_train_epoch_start(running, None)
    bar.on_train_batch_end(running, None, None, None, 0)
    yield "epoch"
    bar.on_validation_start(running, None)
    bar.on_validation_batch_end(running, None, None, None, 0, 0)
    yield "validation"
    bar.on_validation_end(running, None)
    yield "epoch again"
    bar.on_train_epoch_end(running, None)
    bar.on_test_start(running, SimpleNamespace(test_name="popularity"))
    bar.on_test_batch_end(running, None, None, None, 1, 0)
    yield "test"
    bar.on_test_end(running, None)


def test_the_bar_fits_80_columns_and_says_what_runs(monkeypatch):
    running = trainer()
    bar, file = made(monkeypatch, running)
    lines = {name: shown(bar) for name in cycle(bar, running)}
    assert all(text.count("\n") == 1 and len(text) <= 81 for text in lines.values()), lines
    assert lines["epoch"].startswith("epoch 100/100 ")
    assert lines["epoch"].endswith(" loss 7.250  ndcg@10 .5000\n")
    assert "1/123456" in lines["epoch"] and "1/123456" in lines["epoch again"]
    assert lines["validation"].startswith("validation ━") and " 1/3 " in lines["validation"]
    assert lines["test"].startswith("test of popularity ━") and " 2/3 " in lines["test"]
    assert bar._progress is None and file.getvalue().rstrip().endswith(
        "\x1b[2K\x1b[?25h"
    )  # cleared


@pytest.mark.parametrize("given", [{}, {"is_global_zero": False}])
def test_nothing_is_written_to_a_file_or_by_further_processes(monkeypatch, given):
    running = trainer(**given)
    bar, file = made(monkeypatch, running, terminal=bool(given))
    assert len(list(cycle(bar, running))) == 4 and file.getvalue() == ""


def test_the_bar_is_gone_before_an_error_is_printed(monkeypatch):
    running = trainer()
    bar, _ = made(monkeypatch, running)
    steps = cycle(bar, running)
    next(steps), next(steps)  # within a validation
    bar.on_exception(running, None, KeyboardInterrupt())
    assert bar._progress is None
    bar.on_train_batch_end(running, None, None, None, 5)  # resumed within an epoch
    assert "6/123456" in shown(bar)
    bar.on_train_epoch_end(running, None)


def test_a_training_without_end_or_metrics_has_a_bar(monkeypatch):
    running = trainer(max_epochs=-1, num_training_batches=float("inf"), callback_metrics={})
    bar, _ = made(monkeypatch, running)
    next(cycle(bar, running))
    assert shown(bar).startswith("epoch 100 ") and "1/?" in shown(bar)
    bar.on_train_epoch_end(running, None)


def test_stretches_of_steps_update_the_metrics(monkeypatch):
    running = trainer(train_dataloader=SimpleNamespace(num_passed=50), callback_metrics={})
    bar, _ = made(monkeypatch, running)
    bar.on_train_batch_end(running, None, None, None, 49)
    running.callback_metrics = METRICS
    bar.on_train_batch_end(running, None, None, None, 99)
    assert "100/123456" in shown(bar) and "loss 7.250" in shown(bar)
    bar.on_train_epoch_end(running, None)
