"""Runs of a sweep that are trained in one pass leave what each leaves alone, also after a crash."""

import csv
import json
import shutil
import signal

import pytest
import torch

from tests.helpers.content import content, differences
from tests.helpers.runs import SMALL
from twotower.training.callbacks import LastCheckpoint

COMMON = (
    *(setting for setting in SMALL if "log_every" not in setting and "diagnostics" not in setting),
    "trainer.log_every_n_steps=7",
    "callbacks.diagnostics.plots=false",
    "callbacks.epochs=null",
    "trainer.precision=64-true",
)
TIMES = ("wall_seconds", "train_examples_per_second", "peak_memory_bytes", "fused", "overrides")


def sweep(script, launcher, *settings):
    where = f"hydra.sweep.dir={script.folder / 'sweep'}"
    return script("train", "-m", *COMMON, *settings, where, f"hydra/launcher={launcher}")


def moved(script, target):
    """Move the sweep's folder; then another one has the same paths in its files."""
    (script.folder / "sweep").rename(script.folder / target)
    return run_folders(script, target)


def run_folders(script, folder="sweep"):
    return sorted(path.parent for path in (script.folder / folder).glob("*/metrics.json"))


def assert_alike(one, other, tolerance):
    """Equal but for rounding, times, and paths."""
    for name in ("best", "last"):
        assert_close(*(load(run, name) for run in (one, other)), tolerance, name)
    records = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    assert_close(*records, tolerance / 1e3, "metrics.json")
    logs = [list(csv.DictReader((run / "metrics.csv").open(newline=""))) for run in (one, other)]
    numbers = [[{k: float(v) for k, v in row.items() if v} for row in log] for log in logs]
    assert_close(*numbers, tolerance / 1e3, "metrics.csv")
    names = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (one, other)]
    assert names[0] == {name for name in names[1] if "resumed-" not in name}


def load(run, name):
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    checkpoint["callbacks"].pop("TakesPart", None)
    return checkpoint


def assert_close(one, other, tolerance, where):
    if isinstance(one, dict):
        places = {key for key in one if not is_unequal(key)}
        assert places == {key for key in other if not is_unequal(key)}, where
        for key in places:
            assert_close(one[key], other[key], tolerance, f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_close(*pair, tolerance, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape, where
        assert torch.allclose(one, other, rtol=0, atol=tolerance), where
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance), where
    else:
        assert one == other, where


def is_unequal(key):
    return key in (*TIMES, "loss.alignment.running.updates")


CASES = {
    "lambdas": ("seed=0,1", "loss.lambda3=0,0.5", "loss.lambda1=0.1"),
    "a schedule and clipping": (
        "optimizer.lr=0.01,0.001",
        "scheduler=linear_warmup",
        "+trainer.gradient_clip_val=0.1",
    ),
    "an average": ("seed=0,1", "callbacks.average.decay=0.9"),
    "early stopping": (
        "seed=0,1,2,3",
        "optimizer.lr=0.3",
        "trainer.max_epochs=5",
        "callbacks.early_stopping.patience=1",
    ),
    "validations within an epoch": (
        "seed=0,1",
        "+trainer.val_check_interval=8",
        "trainer.max_steps=50",
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        case if case == "early stopping" else pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_runs_leave_what_they_leave_alone(script, case):
    found = []
    for launcher in ("basic", "fused"):
        done = sweep(script, launcher, *CASES[case])
        assert done.returncode == 0, done.stderr
        found.append(moved(script, launcher))
    alone, together = found
    assert [run.name for run in alone] == [run.name for run in together] and len(alone) > 1
    for one, other in zip(alone, together, strict=True):
        assert_alike(one, other, 1e-9)
        records = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
        assert [record["fused"] for record in records] == [1, len(alone)]
    if case == "early stopping":  # some runs leave earlier, and the stack becomes smaller
        epochs = [json.loads((run / "metrics.json").read_text())["epochs"] for run in alone]
        assert len(set(epochs)) > 2, epochs


class Copies:
    """Copies a sweep's folder at moments: a copy is what a SIGKILL at that moment leaves."""

    def __init__(self, folder, target, moments):
        self.folder, self.target, self.moments, self.num = folder, target, moments, 0

    def saved(self):
        self.num += 1
        if self.num in self.moments:
            shutil.copytree(self.folder, self.target / str(self.num))


@pytest.mark.slow
def test_a_killed_pass_ends_as_an_undisturbed_one(script, monkeypatch):
    """To the bit, with dropout, and with runs that had saved different steps and epochs."""
    settings = (
        *("seed=0,1", "optimizer.lr=0.3,0.05", "loss.lambda3=0.1,0", "loss.lambda1=0.1"),
        *("model.dropout=0.3", "trainer.max_epochs=5", "callbacks.early_stopping.patience=1"),
    )
    save = LastCheckpoint.save
    copies = Copies(script.folder / "sweep", script.folder / "copies", (13, 29, 77))

    def save_and_copy(callback, trainer):
        save(callback, trainer)
        copies.saved()

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "save", save_and_copy)
        whole = sweep(script, "fused", *settings)
    assert whole.returncode == 0, whole.stderr
    expected = {run.name: content(run) for run in run_folders(script)}
    for copy in sorted(copies.target.iterdir()):
        shutil.rmtree(copies.folder)
        shutil.copytree(copy, copies.folder)
        resumed = sweep(script, "fused", *settings)
        assert resumed.returncode == 0, resumed.stderr
        for name, one in expected.items():
            found = differences(one, content(copies.folder / name))
            assert not found, "\n".join([copy.name, name, *found[:3]])


def test_steps_are_timed_without_what_other_runs_do_between(script):
    settings = ("seed=0,1", "trainer.max_epochs=1", "trainer.log_every_n_steps=0")  # one stretch
    done = sweep(script, "fused", *settings)
    assert done.returncode == 0, done.stderr
    records = [json.loads((run / "metrics.json").read_text()) for run in run_folders(script)]
    first, second = (record["train_examples_per_second"] for record in records)
    assert first == second > 0


def test_a_run_that_cannot_take_part_is_trained_alone(script):
    changes = "{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler,"
    own = f"+callbacks.own={changes} scheduling: {{0: 1}}}}"
    done = sweep(script, "fused", "seed=0,1", "trainer.max_epochs=1", own)
    assert done.returncode == 0 and done.stdout.count("trained alone: ") == 2, done.stderr
    for run in run_folders(script):
        assert json.loads((run / "metrics.json").read_text())["fused"] == 1


def test_a_run_that_diverges_leaves_the_others(script):
    settings = ("optimizer.lr=0.01,1e30", "trainer.precision=32-true", "trainer.max_epochs=2")
    done = sweep(script, "fused", *settings)
    assert done.returncode == 1 and "1 of 2 runs did not finish" in done.stderr
    (failed,) = (script.folder / "sweep").glob("*/failed.json")
    reason = json.loads(failed.read_text())["error"]
    assert "the loss is" in reason or "no longer finite" in reason
    (together,) = moved(script, "together")
    assert sweep(script, "basic", *settings).returncode == 1
    (alone,) = run_folders(script)
    weights = [load(run, "last")["state_dict"] for run in (alone, together)]
    assert_close(*weights, 1e-3, "weights")


@pytest.mark.slow
def test_an_interrupted_pass_saves_all_runs_and_goes_on(script):
    """To the bit, with dropout; checkpoints of epochs alone would be older."""
    settings = (
        *("seed=0,1,2", "model.dropout=0.3", "trainer.max_epochs=6"),
        *("callbacks.last.every_n_steps=1000", "callbacks.early_stopping=null"),
    )
    assert sweep(script, "fused", *settings).returncode == 0
    whole = moved(script, "whole")
    where = f"hydra.sweep.dir={script.folder / 'sweep'}"
    run = script.popen("train", "-m", *COMMON, *settings, where, "hydra/launcher=fused")
    for line in run.stdout:
        if "3 runs, epoch 2/6" in line:
            run.send_signal(signal.SIGTERM)
            break
    _, err = run.communicate(timeout=120)
    assert run.returncode == 143 and "0 of 3 runs done; continue with" in err, err
    again = sweep(script, "fused", *settings)
    assert again.returncode == 0 and again.stdout.count("continues") == 3, again.stderr
    for one, other in zip(whole, run_folders(script), strict=True):
        assert_alike(one, other, 0)


@pytest.mark.slow
def test_each_run_of_a_pass_has_its_own_run_of_wandb(script):
    pytest.importorskip("wandb")
    done = sweep(script, "fused", "seed=0,1", "trainer.max_epochs=1", "logger=wandb")
    assert done.returncode == 0, done.stderr
    names = set()
    for run in run_folders(script):
        (own,) = run.glob("wandb/offline-run-*")
        names.add(own.name.rpartition("-")[2])
        assert (run / "wandb" / "run_id").read_text() == own.name.rpartition("-")[2]
        assert sum(path.stat().st_size for path in own.rglob("*.wandb")) > 5_000
    assert len(names) == 2


@pytest.mark.slow
def test_a_run_of_a_pass_is_evaluated_and_continued_alone(script):
    settings = ("seed=0,1", "optimizer.lr=0.01")
    assert sweep(script, "fused", *settings, "trainer.max_epochs=2").returncode == 0
    for run in run_folders(script):
        before = json.loads((run / "metrics.json").read_text())["test"]
        evaluated = script("evaluate", f"ckpt_path={run}", "output=again.json")
        assert evaluated.returncode == 0, evaluated.stderr
        again = json.loads((script.folder / "again.json").read_text())["test"]
        assert again == pytest.approx(before, abs=1e-12)
        longer = script("train", f"ckpt_path={run}", "trainer.max_epochs=3", *COMMON[-4:])
        assert longer.returncode == 0 and "TakesPart" not in longer.stderr, longer.stderr
    together = moved(script, "together")
    assert sweep(script, "basic", *settings, "trainer.max_epochs=3").returncode == 0
    for one, other in zip(run_folders(script), together, strict=True):
        weights = [load(run, "last")["state_dict"] for run in (one, other)]
        assert_close(*weights, 1e-9, one.name)
