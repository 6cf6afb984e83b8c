"""Class names from before modules moved: checkpoints and records that have them keep working."""

import importlib
import json
from pathlib import Path

import pytest
import torch

import twotower
from tests.helpers.saved import SMALL
from twotower.report.record import read_record
from twotower.run.moved import MOVED, new_name, renamed
from twotower.run.settings import leaves

# what a checkpoint carried of its config, written before the modules moved
EARLIER = json.loads(Path(__file__).with_name("config_of_earlier_checkpoint.json").read_text())
TRAIN = (*SMALL, "optimizer=lazy_adam", "loss.task.temperature=0.07")


def test_every_old_name_maps_to_an_existing_module():
    for old, new in MOVED.items():
        assert importlib.import_module(new).__name__ == new
        assert old != new


def test_only_class_names_are_renamed():
    old, new = "twotower.data.table.Table", "twotower.data.readers.table.Table"
    node = {"_target_": old, "interactions": old, "columns": [{"_target_": old}, old], "k": 1}
    assert renamed(node) == {
        "_target_": new,
        "interactions": old,
        "columns": [{"_target_": new}, old],
        "k": 1,
    }
    assert renamed({"data.reader._target_": old, "data.reader.path": old}) == {
        "data.reader._target_": new,
        "data.reader.path": old,
    }
    assert new_name(new) == new and new_name("mylab.readers.Table") == "mylab.readers.Table"


def test_modules_are_found_by_their_old_names():
    assert twotower.callbacks is importlib.import_module("twotower.training.callbacks")
    with pytest.raises(AttributeError, match="has no attribute 'benchmarks'"):
        _ = twotower.benchmarks


def test_a_record_with_old_names_has_the_same_variant(tmp_path):
    record = {
        "status": "completed",
        "model": "two_tower",
        "data": "synthetic",
        "data_fingerprint": "x",
        "seed": 0,
        "overrides": [],
        "settings": {"optimizer._target_": "twotower.optimizers.LazyAdam"},
        "test": {"mrr": 0.1},
    }
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(record))
    assert read_record(path).settings == {
        "optimizer._target_": "twotower.optimizers.row_sparse.LazyAdam"
    }


def succeeds(script, *command):
    run = script(*command)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def earlier(script):
    """A script with a run of one epoch and the old names in its checkpoints."""
    succeeds(script, "train", *TRAIN, "trainer.max_epochs=1", "hydra.run.dir=run")
    for name in ("best", "last"):
        path = script.folder / "run" / "checkpoints" / f"{name}.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        about = checkpoint["twotower"]
        for root in ("data", "model", "loss", "optimizer"):  # the same settings under new names
            configs = (about["config"], renamed(EARLIER["config"]))
            today, before = (dict(leaves("", config[root])) for config in configs)
            assert {key: today[key] for key in before} == before  # new ones have defaults
        torch.save({**checkpoint, "twotower": {**about, **EARLIER}}, path)
    return script


def test_a_checkpoint_with_old_names_evaluates_and_resumes(earlier):
    before = earlier.metrics("run")["test"]
    succeeds(earlier, "evaluate", "ckpt_path=run/checkpoints/best.ckpt", "output=again.json")
    again = json.loads((earlier.folder / "again.json").read_text())
    assert again["test"] == pytest.approx(before)
    last = "ckpt_path=run/checkpoints/last.ckpt"
    refused = earlier("train", last, "model.tower=residual")
    assert refused.returncode == 1 and "start a new run" in refused.stderr
    # a setting that was not there may be named with the value that changes nothing
    succeeds(earlier, "train", last, "trainer.max_epochs=2", "logger=none", "model.tower=mlp")
    assert earlier.metrics("run")["epochs"] == 2


@pytest.mark.slow
def test_a_checkpoint_with_old_names_is_exported(earlier):
    pytest.importorskip("onnx")
    succeeds(earlier, "export", "ckpt_path=run/checkpoints/best.ckpt", "output=exported")
    assert (earlier.folder / "exported" / "manifest.json").exists()
