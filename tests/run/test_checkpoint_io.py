"""Checkpoints are whole or not there, whatever happens while they are written."""

import os
import resource
import signal
import tempfile

import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.errors import UserError
from twotower.training.callbacks import LastCheckpoint
from twotower.training.checkpoint_io import WholeCheckpointIO

OLD, NEW = ({"weights": torch.full((20_000,), number)} for number in (1.0, 2.0))  # 80 kB each


def saved(path):
    return torch.load(path, weights_only=True)["weights"].unique().tolist()


def save_and_die(path, num_bytes):
    """A process that the system kills when it has written so many bytes of the new checkpoint."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
        WholeCheckpointIO().save_checkpoint(NEW, path)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_process_killed_while_it_saves_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint(OLD, path)
    size = path.stat().st_size
    for num_bytes in (0, 1, size // 3, size - 1):
        assert save_and_die(path, num_bytes) == signal.SIGXFSZ
        assert saved(path) == [1.0]
    assert save_and_die(path, 2 * size) == 0
    assert saved(path) == [2.0] and [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    save_and_die(tmp_path / "best.ckpt", 1000)
    assert [file.name for file in tmp_path.iterdir()] == [".best.ckpt.partial"]

    class Trainer:
        is_global_zero = True

    LastCheckpoint(str(tmp_path), 1).on_fit_start(Trainer(), None)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(tmp_path):
    path, limit = tmp_path / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    WholeCheckpointIO().save_checkpoint(OLD, path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))  # Python ignores the signal
        with pytest.raises(
            UserError, match="cannot write the checkpoint .*; the one before"
        ) as told:
            WholeCheckpointIO().save_checkpoint(NEW, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(path) in str(told.value) and len(str(told.value).splitlines()) == 1
    assert saved(path) == [1.0] and list(tmp_path.iterdir()) == [path]


def test_a_run_needs_no_folder_for_temporary_files(script, monkeypatch, tmp_path):
    """One that is missing, and one that is there and stays empty."""
    folder = tmp_path / "temporary"
    for make in (False, True):
        folder.mkdir() if make else None
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        done = script("train", *SMALL, "trainer.max_steps=2", "hydra.run.dir=run")
        assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    names = {path.name for path in (script.folder / "run" / "checkpoints").iterdir()}
    assert names == {"last.ckpt"}


def test_a_run_whose_disk_is_full_ends_with_one_line(script, monkeypatch):
    def full(checkpoint, file):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("twotower.training.checkpoint_io.torch.save", full)
        run = script("train", *SMALL, "trainer.max_steps=2", "hydra.run.dir=run")
    assert run.returncode == 1 and run.stderr.count("error") == 1, run.stderr
    assert "cannot write the checkpoint" in run.stderr and "No space left on device" in run.stderr
