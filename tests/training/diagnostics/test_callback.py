"""The callback in whole runs: weights unchanged by it, resuming, two processes, other models."""

import csv

import pytest
import torch
from hydra.utils import get_class
from PIL import Image

from tests.helpers.composition import compose_train
from tests.helpers.runs import SMALL
from tests.helpers.waiting import finish
from twotower.errors import UserError

WITH = tuple(setting for setting in SMALL if "diagnostics" not in setting)


def columns(script, run):
    with (script.folder / run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def plots(script, run):
    found = {}
    for path in (script.folder / run / "plots").glob("*.png"):
        with Image.open(path) as image:
            image.load()
            found[path.stem] = image.size
    return found


@pytest.mark.slow
def test_same_weights_with_and_without_and_resumed(script):
    settings = ("seed=4", "model.hidden_dims=[16]", "model.dropout=0.3", "trainer.max_epochs=2")
    assert script("train", *SMALL, *settings, "hydra.run.dir=without").returncode == 0
    run = script("train", *WITH, *settings, "hydra.run.dir=with")
    assert run.returncode == 0, run.stderr
    first = script("train", *WITH, *settings, "trainer.max_epochs=1", "hydra.run.dir=resumed")
    assert first.returncode == 0, first.stderr
    again = script("train", "ckpt_path=resumed/checkpoints/last.ckpt", "trainer.max_epochs=2")
    assert again.returncode == 0, again.stderr
    for name in ("last", "best"):
        plain = script.weights("without", name)
        for other in ("with", "resumed"):
            found = script.weights(other, name)
            assert all(torch.equal(plain[key], found[key]) for key in plain), (name, other)
    assert (
        script.metrics("without")["test"]
        == script.metrics("with")["test"]
        == script.metrics("resumed")["test"]
    )
    assert script.metrics("without")["diagnostics"] is None
    found = script.metrics("with")["diagnostics"]
    assert found == script.metrics("resumed")["diagnostics"]
    assert (
        found["hit_rate@10/intact"] == script.metrics("with")["test"]["hit_rate@10"]
    )  # all users fit into the sample
    assert plots(script, "with").keys() == {
        "vectors",
        "augmented",
        "category_covariance",
        "category_hit_rate",
        "item_vectors",
        "learning",
    }
    logged = [row["diagnostics/val/mimic_r2/train/a_u"] for row in columns(script, "with")]
    assert len([value for value in logged if value]) == 2  # once an epoch
    tested = [row for row in columns(script, "with") if row["diagnostics/test/cosine/user"]]
    assert len(tested) == 1  # the oracle of synthetic data is tested too, and not measured
    last = torch.load(script.folder / "resumed" / "checkpoints" / "last.ckpt", weights_only=True)
    (history,) = [
        state["history"] for name, state in last["callbacks"].items() if "Diagnostics" in name
    ]
    assert [row["epoch"] for row in history] == [0, 1]


def test_every_n_epochs_and_a_model_without_augmented_vectors(script):
    run = script(
        "train",
        *WITH,
        "model=two_tower",
        "callbacks.diagnostics.every_n_epochs=2",
        "hydra.run.dir=run",
    )
    assert run.returncode == 0, run.stderr
    rows = columns(script, "run")
    assert (
        len([row for row in rows if row["diagnostics/val/cosine/user"]]) == 1
    )  # of epochs 1, 2, 3 the second
    assert not any("a_u" in name for name in rows[0])
    assert plots(script, "run").keys() == {
        "vectors",
        "category_covariance",
        "category_hit_rate",
        "item_vectors",
        "learning",
    }


def test_a_model_that_is_not_trained(script):
    run = script("train", *WITH, "model=popularity", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert script.metrics("run")["diagnostics"]["effective_rank/item"] == pytest.approx(1)
    assert len(plots(script, "run")) == 4


def test_plots_come_after_the_figures_and_may_fail(script, monkeypatch):
    def fail(folder, history, found):
        assert script.metrics("run")["status"] == "completed"
        assert (script.folder / "run" / "test_ranks.parquet").exists()
        raise ZeroDivisionError("no [plot]\nfor $5_to_$10")

    monkeypatch.setattr("twotower.training.diagnostics.plots.draw", fail)
    run = script("train", *WITH, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run.returncode == 0
    expected = (
        "warning: the plots of the diagnostics are left out: "
        "ZeroDivisionError: no [plot] for $5_to_$10"
    )
    assert run.stderr.split("\n")[-2:] == [expected, ""] and run.stderr.count("left out") == 1
    assert script.metrics("run")["diagnostics"]


def test_diagnostics_that_cannot_measure_say_so_once_and_stop(monkeypatch, capsys):
    node = dict(compose_train().callbacks.diagnostics._content)
    settings = {key: value._value() for key, value in node.items() if not key.startswith("_")}
    callback = get_class("twotower.training.diagnostics.callback.Diagnostics")(
        **{**settings, "dirpath": "x"}
    )
    monkeypatch.setattr(callback, "_measure", lambda *_: 1 / 0)
    for _ in range(2):
        callback.users = [None]
        callback.on_validation_epoch_end(None, None)
        callback.on_test_epoch_end(None, None)
        callback.draw_plots()
    assert callback.history == [] and callback.users == []
    assert (
        capsys.readouterr().err
        == "warning: the diagnostics are left out: ZeroDivisionError: division by zero\n"
    )


@pytest.mark.slow
def test_two_processes(script):
    process = script.popen(
        "train", *WITH, "trainer.devices=2", "loss.alignment.momentum=0.9", "hydra.run.dir=run"
    )
    _, err = finish(process)
    assert process.returncode == 0, err
    assert len(plots(script, "run")) == 6
    rows = columns(script, "run")
    assert len([row for row in rows if row["diagnostics/val/mrr/a_u_shuffled"]]) == 3


@pytest.mark.parametrize(
    "name", ["every_n_epochs", "num_users", "num_items", "num_categories", "num_train_batches", "k"]
)
def test_impossible_settings_are_refused(name):
    node = dict(compose_train().callbacks.diagnostics._content)
    settings = {key: value._value() for key, value in node.items() if not key.startswith("_")}
    with pytest.raises(UserError, match=f"callbacks.diagnostics.{name}"):
        get_class("twotower.training.diagnostics.callback.Diagnostics")(
            **{**settings, "dirpath": "x", name: 0}
        )
