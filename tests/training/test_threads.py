"""Threads of a training step by its work, and cores that a process may use."""

import os
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from twotower import processes
from twotower.training import threads
from twotower.training.threads import StepThreads


class Towers(nn.Module):
    """100 * 200 weights for a positive, and 50 * 50 for each item of its history."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10_000, 100)  # looked up, not multiplied
        self.tower = nn.Linear(100, 200, bias=False)
        self.history = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(50, 50, bias=False))})


@pytest.fixture
def chosen(monkeypatch):
    """The numbers that are set, on a machine of 8 cores."""
    found = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    return found


class Task(pl.LightningModule):
    """Notes the last number that was set before each of its two steps."""

    def __init__(self, chosen):
        super().__init__()
        self.model, self.chosen, self.in_steps = Towers(), chosen, []

    def training_step(self, batch, index):
        self.in_steps.append(self.chosen[-1] if self.chosen else None)
        return self.model.tower.weight.sum()

    def validation_step(self, batch, index):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    """A step and a validation an epoch."""

    def __init__(self, batch_size):
        super().__init__()
        self.batch_size, self.options = batch_size, SimpleNamespace(history_length=4)

    def train_dataloader(self):
        return DataLoader([0])

    val_dataloader = train_dataloader


def run(batch_size, chosen, folder):
    """Two epochs of Lightning's own loops."""
    quiet = ("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger")
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[StepThreads()],
        default_root_dir=folder,
        **dict.fromkeys(quiet, False),
    )
    task = Task(chosen)
    trainer.fit(task, Data(batch_size))
    return task.in_steps


# a positive costs 100 * 200 + 4 * 50 * 50 = 30,000 multiply-adds; 200M are much
@pytest.mark.parametrize(("batch_size", "expected"), [(6_666, 1), (6_667, 8)])
def test_a_small_step_has_one_thread_and_evaluation_has_all(chosen, batch_size, expected, tmp_path):
    assert run(batch_size, chosen, tmp_path) == [expected, expected]
    assert chosen[-1] == 8 and chosen.count(8) >= 3  # two validations and the end


def test_a_validation_before_the_training_sets_no_steps(chosen):
    callback = StepThreads()
    callback.on_validation_start(None, None)
    callback.on_validation_end(None, None)
    assert chosen == [8]


def test_the_users_number_stays(chosen, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run(100, chosen, tmp_path) == [None, None]
    assert chosen == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("300000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_cores_are_those_of_the_affinity_and_of_the_quota(monkeypatch, tmp_path, text, expected):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(processes, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert processes.available_cores() == expected


def test_threads_wait_without_spinning_unless_the_user_has_decided(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    processes.wait_without_spinning()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    processes.wait_without_spinning()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
