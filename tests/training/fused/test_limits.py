"""Each setting that keeps a run from being fused or recorded is named."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler, LambdaCallback

from tests.helpers.fused import DAT, Run
from twotower.models.popularity import Popularity
from twotower.training.fused.limits import why_not, why_not_here, why_not_recorded
from twotower.training.fused.whole_steps import _sees_every_step


def test_a_usual_run_has_no_reason(world):
    run = Run(world, 0, *DAT)
    assert why_not(run.task, run.data, run.optimizer) is None
    assert why_not(run.task, run.data, None, precision="64-true") is None


@pytest.mark.parametrize(
    ("of_trainer", "reason"),
    [
        ({"num_processes": 2}, "trainer.devices=2"),
        ({"accumulate": 3}, "trainer.accumulate_grad_batches=3"),
        ({"precision": "16-mixed"}, "trainer.precision=16-mixed"),
        ({"precision": "bf16-mixed"}, "trainer.precision=bf16-mixed"),
        ({"compiled": True}, "callbacks.speed.compile=true"),
    ],
)
def test_settings_of_the_trainer(world, of_trainer, reason):
    run = Run(world, 0, *DAT)
    assert why_not(run.task, run.data, run.optimizer, **of_trainer).startswith(reason)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("model/history=gru", "model/history=gru"),
        ("negatives=mined_and_uniform", "negatives=mined"),
        ("optimizer=lazy_adam", "optimizer=LazyAdam"),
        ("+optimizer.amsgrad=true", "optimizer.amsgrad=true"),
        ("+optimizer.maximize=true", "optimizer.maximize=true"),
    ],
)
def test_settings_of_model_and_optimizer(world, setting, reason):
    run = Run(world, 0, *DAT, setting)
    assert why_not(run.task, run.data, run.optimizer).startswith(reason)


def test_other_reasons(world):
    run = Run(world, 0, *DAT)
    run.data.shuffle_window = 100
    assert why_not(run.task, run.data, run.optimizer).startswith("data.shuffle_window")
    run.data.shuffle_window = None
    run.optimizer.add_param_group({"params": torch.nn.Parameter(torch.zeros(1))})
    assert "several groups" in why_not(run.task, run.data, run.optimizer)
    run.task.model = Popularity(world.schema)
    assert "closed form" in why_not(run.task, run.data, None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"reload_dataloaders_every_n_epochs": 1}, "trainer.reload_dataloaders_every_n_epochs=1"),
        ({"callbacks": [GradientAccumulationScheduler({1: 2})]}, "GradientAccumulationScheduler"),
        ({"callbacks": [LambdaCallback(on_after_backward=print)]}, "LambdaCallback"),
    ],
)
def test_what_lightning_does_between_steps(settings, reason):
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", **settings)
    assert why_not_here(trainer).startswith(reason)


def test_a_function_is_called_after_each_step():
    assert _sees_every_step(LambdaCallback(on_train_batch_end=print))
    assert not _sees_every_step(LambdaCallback(on_train_epoch_end=print))


def test_steps_are_recorded_on_nvidia_gpus_only():
    assert why_not_recorded(torch.device("cuda", 0)) is None
    assert "NVIDIA" in why_not_recorded(torch.device("cpu"))
