"""Which runs are one variant, and what it is called."""

import os
from pathlib import Path

import pytest

from tests.report.world import run_of
from twotower.errors import UserError
from twotower.report.variants import by_data, choose_baseline, variants
from twotower.run.settings import flat


def run(tmp_path: Path, name, overrides, settings, model="dat", seed=0, age=0, fingerprint="f"):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "metrics.json").touch()
    written = (folder / "metrics.json").stat().st_mtime - age
    os.utime(folder / "metrics.json", (written, written))
    fields = {"model": model, "overrides": overrides, "split_fingerprint": fingerprint}
    return run_of(seed, folder, settings={"model._target_": model, **settings}, **fields)


def labels(runs):
    return {variant.label: [run.name for run in variant.runs] for variant in variants(runs)[0]}


def test_runs_that_differ_by_seed_and_machine_are_one_variant_called_by_what_differs(tmp_path):
    common = ["data=toy", "trainer.max_epochs=3", "optimizer.lr=.01"]
    runs = [
        run(
            tmp_path,
            "a",
            [*common, "model=dat", "loss.lambda3=0", "seed=1", "paths.output_dir=x"],
            {"loss.lambda3": 0},
            seed=1,
        ),
        run(
            tmp_path,
            "b",
            [*common, "model=dat", "loss.lambda3=0", "trainer.accelerator=cpu"],
            {"loss.lambda3": 0.0},
        ),
        run(
            tmp_path,
            "c",
            [*common, "model=dat", "logger=wandb", "+trainer.enable_checkpointing=false"],
            {"loss.lambda3": 1},
        ),
        run(
            tmp_path,
            "d",
            [*common, "model=two_tower", "callbacks.progress=null"],
            {},
            model="two_tower",
        ),
    ]
    assert labels(runs) == {"dat λ3=0": ["b", "a"], "dat": ["c"], "two_tower": ["d"]}


def test_a_default_said_aloud_is_the_default(tmp_path):
    runs = [
        run(tmp_path, "a", ["model=dat"], {"loss.lambda3": 1}),
        run(tmp_path, "b", [], {"loss.lambda3": 1.0}, seed=1),
    ]
    assert labels(runs) == {"dat": ["a", "b"]}


def test_a_confirmed_variant_is_named_without_its_searched_settings(tmp_path):
    runs = []
    for name, rate in (("dat", 0.002), ("two_tower", 0.005)):
        one = run(tmp_path, name, [f"variant={name}", f"optimizer.lr={rate}"], {"lr": rate}, name)
        runs.append(one._replace(record=one.record.model_copy(update={"budget": 24})))
    assert labels(runs) == {"dat": ["dat"], "two_tower": ["two_tower"]}
    assert [variant.budget for variant in variants(runs)[0]] == [24, 24]


def test_names_come_from_experiments(tmp_path):
    runs = [
        run(tmp_path, "a", ["experiment=dat_lambda0", "model.dim=8"], {"x": 1}),
        run(tmp_path, "b", ["experiment=two_tower_wide", "model.dim=8"], {"x": 2}),
        run(tmp_path, "c", ["experiment=two_tower_wide", "model.dim=16"], {"x": 3}),
    ]
    assert set(labels(runs)) == {
        "dat_lambda0 dim=8",
        "two_tower_wide dim=8",
        "two_tower_wide dim=16",
    }


def test_other_settings_under_the_same_overrides_never_merge(tmp_path):
    runs = [
        run(tmp_path, "a", ["model=dat"], {"optimizer.lr": 0.1}),
        run(tmp_path, "b", ["model=dat"], {"optimizer.lr": 0.2}),
        run(tmp_path, "c", ["model=dat"], {}),
    ]
    assert labels(runs) == {
        "dat optimizer.lr=0.1": ["a"],
        "dat optimizer.lr=0.2": ["b"],
        "dat optimizer.lr=unset": ["c"],
    }


def test_settings_that_end_alike_are_told_in_full(tmp_path):
    runs = [
        run(tmp_path, "a", ["model.dim=1", "loss.dim=2"], {"x": 1}),
        run(tmp_path, "b", ["model.dim=2", "loss.dim=1"], {"x": 2}),
    ]
    assert set(labels(runs)) == {"dat model.dim=1 loss.dim=2", "dat model.dim=2 loss.dim=1"}


def test_a_repeated_seed_counts_once_the_newest(tmp_path):
    runs = [
        run(tmp_path, "old", [], {}, age=100),
        run(tmp_path, "new", [], {}),
        run(tmp_path, "other", [], {}, seed=1, age=100),
    ]
    found, repeated = variants(runs)
    assert [run.name for run in found[0].runs] == ["new", "other"]
    assert [(run.name, run.reason) for run in repeated] == [
        ("old", "repeats new: the same settings and seed")
    ]


def test_data_are_told_apart_by_fingerprint_and_masking(tmp_path):
    runs = [
        run(tmp_path, "a", [], {"data.mask_seen": True}, fingerprint="f"),
        run(tmp_path, "b", [], {"data.mask_seen": True}, fingerprint="g"),
        run(tmp_path, "c", [], {"data.mask_seen": False}, fingerprint="f"),
        run(tmp_path, "d", [], {"data.mask_seen": True}, fingerprint="f"),
    ]
    assert [[run.name for run in group] for group in by_data(runs)] == [["a", "d"], ["b"], ["c"]]


def test_runs_that_hid_targets_stand_apart_from_older_ones_that_did_not(tmp_path):
    runs = [run(tmp_path, name, [], {"data.mask_seen": True}) for name in "abcd"]
    for one, hidden in zip(runs[1:], (0.0, 0.25, 0.25), strict=True):
        one.record.test["hidden_targets"] = hidden
    assert [[run.name for run in group] for group in by_data(runs)] == [["a", "b"], ["c", "d"]]


def test_the_baseline_is_the_plainest_or_the_one_that_is_named(tmp_path):
    zero = {"loss.lambda1": 0, "loss.lambda3": 0}
    runs = [
        run(tmp_path, "a", ["model=dat"], {"loss.lambda1": 1, "loss.lambda3": 0}),
        run(tmp_path, "b", ["model=dat", "loss.lambda1=0"], zero),
    ]
    found = variants(runs)[0]
    assert choose_baseline(found, None).label == "dat λ1=0"
    assert choose_baseline(found, "dat").label == "dat"  # the whole label goes before a part
    assert choose_baseline(found, "lambda1=0").label == "dat λ1=0"
    with pytest.raises(
        UserError, match="baseline=da names more than one variant; there are: dat; dat λ1=0"
    ):
        choose_baseline(found, "da")
    plain = run(tmp_path, "c", ["model=two_tower"], zero, model="two_tower")
    assert choose_baseline(variants([*runs, plain])[0], None).label == "two_tower"


def test_settings_hold_what_decides_and_nothing_of_the_machine():
    config = {
        "seed": 3,
        "paths": {"data_dir": "/secret"},
        "data": {
            "data_dir": "/x",
            "seed": "${seed}",
            "batch_size": 8,
            "eval_batch_size": 9,
            "reader": {"url": "u"},
        },
        "model": {
            "hidden_dims": [2, 1],
            "history": {"dim": "${model.dim}", "n": 1},
            "features": {},
        },
        "trainer": {
            "accelerator": "gpu",
            "devices": [0, 3],
            "num_nodes": 2,
            "max_epochs": 5,
            "enable_progress_bar": True,
        },
        "callbacks": {
            "early_stopping": {"patience": 3},
            "best": {"dirpath": "/y"},
            "progress": None,
        },
        "logger": {"key": "secret"},
    }
    assert flat(config) == {
        "data.batch_size": 8,
        "model.hidden_dims": "[2, 1]",
        "model.history.n": 1,
        "model.features": "{}",
        "trainer.max_epochs": 5,
        "trainer.num_processes": 4,
        "callbacks.early_stopping.patience": 3,
    }
    assert flat(config, num_processes=1)["trainer.num_processes"] == 1
