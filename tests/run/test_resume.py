"""A killed and resumed run equals one that was never stopped, under every trainer setting.

One run is copied at several moments: a copy is what a SIGKILL at that moment leaves on the disk.
Each copy is then resumed in the run's own folder.
"""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.content import content, differences
from tests.helpers.runs import SMALL
from twotower.training.callbacks import LastCheckpoint, is_last_batch
from twotower.training.task import RetrievalTask

WORLD = (
    *(setting for setting in SMALL if "diagnostics" not in setting and "max_epochs" not in setting),
    "callbacks.diagnostics.plots=false",
    "trainer.max_epochs=3",
    "model.dropout=0.2",
    "data.reader.num_users=120",
)


class Moments:
    """Copies the folder of a run at moments of its training.

    Attributes:
        mid: some batches into an epoch, not at a save.
        saved: just after a save between two batches.
        last_batch: after an epoch's last batch, before its validation.
        validating: within a validation.
        validated: a validation is done, ``best.ckpt`` maybe written, ``last.ckpt`` not yet.
        epoch: an epoch is over and saved.
        test: all is trained, the test has begun.
    """

    NAMES = ("mid", "saved", "last_batch", "validating", "validated", "epoch", "test")

    def __init__(self, script, monkeypatch):
        self.run = script.folder / "run"
        self.folder = script.folder / "moments"
        batch_end, epoch_end = LastCheckpoint.on_train_batch_end, LastCheckpoint.on_train_epoch_end
        save, validate, test = (
            LastCheckpoint.save,
            RetrievalTask.validation_step,
            RetrievalTask.test_step,
        )

        def on_train_batch_end(callback, trainer, *args):
            batch_end(callback, trainer, *args)
            if is_last_batch(trainer):
                self.take("last_batch", trainer.current_epoch == 1)
            self.take("mid", trainer.fit_loop.total_batch_idx == 25)

        def on_train_epoch_end(callback, trainer, module):
            self.take("validated", trainer.current_epoch == 1)
            epoch_end(callback, trainer, module)
            self.take("epoch", trainer.current_epoch == 1)

        def saving(callback, trainer):
            save(callback, trainer)
            self.take("saved", trainer.fit_loop.total_batch_idx > 20 and not is_last_batch(trainer))

        def validation_step(task, *args):
            self.take("validating", task.trainer.current_epoch == 1)
            validate(task, *args)

        def test_step(task, *args):
            self.take("test", True)
            test(task, *args)

        for owner, hook in (
            (LastCheckpoint, on_train_batch_end),
            (LastCheckpoint, on_train_epoch_end),
            (RetrievalTask, validation_step),
            (RetrievalTask, test_step),
        ):
            monkeypatch.setattr(owner, hook.__name__, hook)
        monkeypatch.setattr(LastCheckpoint, "save", saving)

    def take(self, name, now):
        if (
            now
            and not (self.folder / name).exists()
            and (self.run / "checkpoints/last.ckpt").exists()
        ):
            shutil.copytree(self.run, self.folder / name)


def check(script, monkeypatch, settings, moments=Moments.NAMES):
    """Resume a run from copies of several moments, and compare with the run.

    Returns:
        The moments that there were.
    """
    with monkeypatch.context() as patch:
        taken = Moments(script, patch)
        whole = script("train", *WORLD, *settings, "hydra.run.dir=run")
    assert whole.returncode == 0, whole.stderr
    expected = content(taken.run)
    names = [name for name in moments if (taken.folder / name).exists()]
    for name in names:
        shutil.rmtree(taken.run)
        shutil.copytree(taken.folder / name, taken.run)
        resumed = script("train", "ckpt_path=run/checkpoints/last.ckpt")
        assert resumed.returncode == 0, resumed.stderr
        found = differences(expected, content(taken.run))
        assert not found, "\n".join([name, *found])
    return names


ROWS = ("optimizer.min_rows=20",)
SETTINGS = {
    "plain": (),
    "accumulation": ("+trainer.accumulate_grad_batches=4", "callbacks.last.every_n_steps=2"),
    "accumulation, validations between": (
        "+trainer.accumulate_grad_batches=3",
        "+trainer.val_check_interval=5",
        "callbacks.last.every_n_steps=1",
    ),
    "average": ("callbacks.average.decay=0.9",),
    "clipping": ("+trainer.gradient_clip_val=0.1",),
    "clipping by value": (
        "+trainer.gradient_clip_val=0.001",
        "+trainer.gradient_clip_algorithm=value",
    ),
    "64-true": ("trainer.precision=64-true",),
    "bf16-true": ("trainer.precision=bf16-true",),
    "bf16-mixed": ("trainer.precision=bf16-mixed",),
    "16-mixed": ("trainer.precision=16-mixed",),
    "validations in steps": ("+trainer.val_check_interval=5", "callbacks.last.every_n_steps=5"),
    "validations in shares": ("+trainer.val_check_interval=0.3", "callbacks.last.every_n_steps=1"),
    "validations over epochs": (
        "+trainer.val_check_interval=11",
        "trainer.check_val_every_n_epoch=null",
    ),
    "a validation every second epoch": ("trainer.check_val_every_n_epoch=2",),
    "steps": ("trainer.max_steps=40", "trainer.max_epochs=-1"),
    "steps and validations": (
        "trainer.max_steps=40",
        "+trainer.val_check_interval=7",
        "callbacks.last.every_n_steps=1",
    ),
    "fewer batches": ("+trainer.limit_train_batches=14", "+trainer.limit_val_batches=2"),
    "a share of the batches": ("+trainer.limit_train_batches=0.8",),
    "loaders made anew": ("+trainer.reload_dataloaders_every_n_epochs=1",),
    "lazy_adam": ("optimizer=lazy_adam", *ROWS),
    "rowwise_adagrad, clipping": (
        "optimizer=rowwise_adagrad",
        *ROWS,
        "+trainer.gradient_clip_val=0.1",
        "+trainer.accumulate_grad_batches=2",
    ),
    "rowwise_adagrad, 64-true": ("optimizer=rowwise_adagrad", *ROWS, "trainer.precision=64-true"),
    "cosine": (
        "scheduler=cosine",
        "scheduler.warmup_steps=5",
        "optimizer=lazy_adam",
        *ROWS,
        "+trainer.accumulate_grad_batches=2",
        "callbacks.last.every_n_steps=1",
    ),
    "linear_warmup": ("scheduler=linear_warmup", "callbacks.last.every_n_steps=5"),
    "adam": ("optimizer=adam", "optimizer.weight_decay=0.01"),
    "sharding": ("model.sharding=row", "trainer.strategy=ddp", "optimizer=lazy_adam", *ROWS),
    "transformer": ("model/history=transformer",),
    "gru": ("model/history=gru",),
    "users": ("data.positives=users",),
    "sequences": (
        "data.positives=sequences",
        "data.min_history=1",
        "model/history=transformer",
    ),
    "windows": ("data.shuffle_window=100",),
    "early stopping": (
        "trainer.max_epochs=20",
        "callbacks.early_stopping.patience=1",
        "+callbacks.early_stopping.min_delta=0.5",
    ),
    "early stopping within an epoch": (
        "+trainer.val_check_interval=0.3",
        "callbacks.early_stopping.patience=5",
        "+callbacks.early_stopping.min_delta=0.5",
    ),
    "several best": ("callbacks.best.save_top_k=2", "callbacks.best.filename='{epoch}'"),
    "running covariances": ("loss.lambda3=1", "loss.alignment.momentum=0.9"),
    "cold ids": ("model.id_dropout=0.2", "model.cold_ids=trained"),
    "two_tower": ("model=two_tower",),
    "mind": ("model=mind",),
    "mvke": ("model=mvke",),
    "compiled": ("callbacks.speed.compile=true",),
}
SETTINGS |= {
    f"negatives={name}": (f"negatives={name}", "loss/task=sampled_softmax")
    for name in ("in_batch", "mixed", "mixed_popularity", "popularity", "shared_uniform")
}
SETTINGS |= {
    "negatives=uniform": ("negatives=uniform",),
    "negatives=corpus": ("negatives=corpus", "loss/task=full_softmax"),
}
SETTINGS["negatives=mined_and_uniform"] = (
    "negatives=mined_and_uniform",
    "negatives.first.every_n_steps=11",
    "loss/task=sampled_softmax",
    "callbacks.last.every_n_steps=9",
)
DEFAULT = {  # the rest, and the other moments of these, are slow
    "accumulation, validations between": ("saved",),
    "average": ("mid", "epoch", "test"),
    "cosine": ("mid", "epoch"),
    "steps": ("epoch",),
    "negatives=mined_and_uniform": ("saved", "epoch"),
}


@pytest.mark.parametrize("name", DEFAULT)
def test_resumed_is_undisturbed(script, monkeypatch, name):
    assert set(check(script, monkeypatch, SETTINGS[name], DEFAULT[name])) == set(DEFAULT[name])


SLOW = ("accumulation", "validations in shares", "transformer")  # the rest is exhaustive


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=getattr(pytest.mark, "slow" if name in SLOW else "exhaustive"))
        for name in SETTINGS
    ],
)
def test_resumed_at_any_moment_is_undisturbed(script, monkeypatch, name):
    moments = check(script, monkeypatch, SETTINGS[name])
    assert {"saved", "validating", "epoch", "test"} <= set(moments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("short", "long"),
    [
        (("trainer.max_steps=25", "trainer.max_epochs=-1"), "trainer.max_steps=40"),
        (("trainer.max_epochs=2",), "trainer.max_epochs=3"),
    ],
)
def test_a_run_that_trains_longer_is_the_longer_run(script, short, long):
    """A run that ended within an epoch goes on there; its test leaves no row in the log."""
    parameter = long.split("=")[0]
    others = [setting for setting in short if not setting.startswith(parameter)]
    for settings, folder in (((*others, long), "whole"), (short, "run")):
        done = script("train", *WORLD, *settings, f"hydra.run.dir={folder}")
        assert done.returncode == 0, done.stderr
    longer = script("train", "ckpt_path=run/checkpoints/last.ckpt", long)
    assert longer.returncode == 0, longer.stderr
    one, other = (content(script.folder / name) for name in ("whole", "run"))
    for found in (one, other):  # they name their folder and their length
        for name in ("best.ckpt", "last.ckpt"):
            found[name].pop("twotower")
            found[name].pop("callbacks")
        found.pop("settings")
    found = differences(one, other)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_a_run_folder_that_was_moved_knows_its_best_epoch(script, monkeypatch):
    """The best epoch is the first: a resumed run that had forgotten it would choose a later one."""
    settings = ("trainer.max_epochs=4", "callbacks.best.mode=min", "callbacks.early_stopping=null")
    with monkeypatch.context() as patch:
        taken = Moments(script, patch)
        assert script("train", *WORLD, *settings, "hydra.run.dir=run").returncode == 0
    shutil.move(taken.folder / "epoch", script.folder / "moved")
    done = script("train", "ckpt_path=moved/checkpoints/last.ckpt")
    assert done.returncode == 0, done.stderr
    whole, moved = (
        torch.load(path / "checkpoints/best.ckpt", weights_only=True)
        for path in (taken.run, script.folder / "moved")
    )
    assert whole["epoch"] == moved["epoch"] == 0
    assert differences(whole["state_dict"], moved["state_dict"]) == []


@pytest.mark.parametrize(
    "number",
    [pytest.param(4, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.exhaustive)],
)
def test_kills_lose_nothing(script, number):
    """SIGKILL at random moments, many within a save; temporary files are on another disk."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    elsewhere = Path(tempfile.mkdtemp(dir=shm))
    script.env["TMPDIR"] = str(elsewhere)
    settings = (*WORLD, "callbacks.last.every_n_steps=1", "trainer.max_epochs=8")
    settings = (*settings, "callbacks.early_stopping=null", "model.embedding_dim=512")
    whole = script("train", *settings, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    last = script.folder / "run" / "checkpoints" / "last.ckpt"
    draw, kills = random.Random(0), 0
    command = [*settings, "hydra.run.dir=run"]
    while kills < number:
        process = script.popen("train", *command)
        begun = version(last)
        while version(last) == begun and process.poll() is None:  # by progress: it has saved
            time.sleep(0.001)
        assert process.poll() is None, "the run ended before it was killed so often"
        time.sleep(draw.random() * 0.3)
        process.kill()
        process.communicate()
        kills += 1
        torch.load(last, weights_only=True)
        command = ["ckpt_path=run/checkpoints/last.ckpt"]
    done = script.popen("train", *command)
    _, errors = done.communicate()
    assert done.returncode == 0, errors
    assert list(elsewhere.iterdir()) == []
    elsewhere.rmdir()
    assert {path.name for path in last.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    one, other = (content(script.folder / name) for name in ("whole", "run"))
    for found in (one, other):
        for name in ("best.ckpt", "last.ckpt"):
            found[name] = {key: found[name][key] for key in ("state_dict", "optimizer_states")}
    found = differences(one, other)
    assert not found, "\n".join(found)


def version(path):
    return path.stat().st_ino if path.exists() else None
