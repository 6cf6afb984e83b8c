"""Threads of a training step by its work, and cores that a process may use."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

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


def run(batch_size):
    data = SimpleNamespace(batch_size=batch_size, options=SimpleNamespace(history_length=4))
    trainer = SimpleNamespace(datamodule=data, training=True)
    task = SimpleNamespace(model=Towers())
    callback = StepThreads()
    callback.on_train_start(trainer, task)
    callback.on_validation_start(trainer, task)
    callback.on_validation_end(trainer, task)
    callback.on_train_end(trainer, task)


# a positive costs 100 * 200 + 4 * 50 * 50 = 30,000 multiply-adds; 200M are much
@pytest.mark.parametrize(("batch_size", "expected"), [(6_666, 1), (6_667, 8)])
def test_a_small_step_has_one_thread_and_evaluation_has_all(chosen, batch_size, expected):
    run(batch_size)
    assert chosen == [expected, 8, expected, 8]


def test_the_users_number_stays(chosen, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run(100)
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
