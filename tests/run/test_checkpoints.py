"""Damaged checkpoints end in one line that names the file; good ones are rebuilt and resumed."""

import os
import random

import pytest
import torch

from tests.helpers.losses import make_alignment
from tests.helpers.saved import Saved, changed
from twotower.errors import UserError
from twotower.run.checkpoint.checkpoints import load_checkpoint
from twotower.run.checkpoint.file import checkpoint_file
from twotower.run.checkpoint.restoring import CheckedConnector
from twotower.training.task import RetrievalTask

WRONG = (None, "text", -1, 1.5, float("nan"), [], {}, [1, "a"], {"a": 1}, torch.zeros(3))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return Saved(tmp_path_factory.mktemp("run"))


def places(node, path=()):
    """Every path in what a checkpoint says of its run; of the many metrics some."""
    if path:
        yield path
    pairs = node.items() if isinstance(node, dict) else ()
    for key, value in list(pairs)[:25]:
        yield from places(value, (*path, key))


def test_a_value_of_another_kind_or_none_ends_in_one_line(saved):
    """Or it does no harm, such as another name of an option."""
    good, draw, ended = saved.good(), random.Random(0), 0
    every = [("twotower", *path) for path in places(good["twotower"])]
    for path in draw.sample(every, 40):
        crafted = saved.write(changed(good, path, draw.choice((..., *WRONG))))
        try:
            saved.rebuild(crafted)
        except UserError as error:
            ended += 1
            assert str(crafted) in str(error) and "\n" not in str(error), error
    assert ended > 20


PARTS = ("loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch", "state_dict")


@pytest.mark.parametrize("key", PARTS)
def test_no_part_can_be_left_out(saved, key):
    path = saved.write(changed(saved.good(), (key,), ...))
    with pytest.raises(UserError, match=key) as error:
        saved.resume(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("loops",), 5),
        (("loops", "fit_loop", "epoch_progress"), []),
        (("loops", "fit_loop", "epoch_progress", "total", "completed"), "text"),
        (("callbacks",), None),
        (("callbacks", "EarlyStopping", "wait_count"), {}),
        (("optimizer_states",), [5]),
        (("optimizer_states", 0, "param_groups"), []),
        (("optimizer_states", 0, "param_groups", 0, "params"), [0]),
        (("state_dict",), []),
    ],
)
def test_a_part_of_another_kind_is_not_resumed(saved, path, value):
    good = saved.good()
    if path[-1] == "wait_count":
        early = next(key for key in good["callbacks"] if key.startswith("EarlyStopping"))
        path = ("callbacks", early, "wait_count")
    crafted = saved.write(changed(good, path, value))
    with pytest.raises(UserError) as error:
        saved.resume(crafted)
    assert str(crafted) in str(error.value) and "\n" not in str(error.value)


def test_running_covariances_have_the_width_that_the_weights_have():
    def task():
        loss = make_alignment(2, momentum=0.9)
        return RetrievalTask(torch.nn.Linear(1, 1), loss, None, [], ["all"], {})

    found = task()
    state = found.state_dict() | {"loss.running.covariance": torch.ones(3, 4, 4)}
    found.load_state_dict(state)
    assert torch.equal(found.loss.running.covariance, torch.ones(3, 4, 4))
    for wrong in (torch.ones(3, 4, 5), torch.ones(2, 4, 4)):
        with pytest.raises(UserError, match="loss.running.covariance has the shape"):
            task().load_state_dict(state | {"loss.running.covariance": wrong})


def test_weights_of_another_shape_name_both(saved):
    good = saved.good()
    name, weight = next(iter(good["state_dict"].items()))
    rows = len(weight)
    path = saved.write(changed(good, ("state_dict", name), weight[:-1]))
    shapes = rf"has the shape \({rows - 1}, 4\), the model's is \({rows}, 4\)"
    for use in (saved.rebuild, saved.resume):
        with pytest.raises(UserError, match=rf"{path.name}: state_dict: {name} {shapes}"):
            use(path)
    bad = weight.clone()
    bad[1, 1] = float("nan")
    with pytest.raises(UserError, match="holds numbers that are not finite"):
        saved.rebuild(saved.write(changed(good, ("state_dict", name), bad)))


def test_a_truncated_file_is_refused(saved, tmp_path):
    whole = saved.path.read_bytes()
    path = tmp_path / "cut.ckpt"
    for size in (0, 1, 3, 4, 5, 100, *range(1000, len(whole), len(whole) // 20), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.ckpt"):
            load_checkpoint(path)


def test_a_wrong_path_is_one_line(tmp_path):
    (tmp_path / "README.md").write_text("# Hello")
    os.mkfifo(tmp_path / "pipe.ckpt")
    for path, message in (
        (tmp_path / "none.ckpt", "there is no such file"),
        (tmp_path / "README.md" / "x", "there is no such file"),
        (tmp_path / "pipe.ckpt", "is not an ordinary file"),
        ("/dev/zero", "is not an ordinary file"),
        (tmp_path, "is a folder without checkpoints/best.ckpt and last.ckpt"),
        ("last", "there is no such file"),
        ("a\0b", "there is no such file"),
        ("a" * 5000, "there is no such file"),
        *((value, "is not a path") for value in (0, "", True, ["a"], None)),
    ):
        with pytest.raises(UserError, match=message):
            checkpoint_file(path)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "README.md")


def test_a_run_folder_stands_for_its_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for written in ("last", "best"):
        (folder / f"{written}.ckpt").touch()
        chosen = [checkpoint_file(tmp_path, resumes).stem for resumes in (False, True)]
        assert chosen == [written, "last"]  # the only one there is, then each its own


def test_a_wrong_ckpt_path_leaves_no_folder(script):
    for name, value in (("train", "0"), ("evaluate", "/dev/zero")):
        run = script(name, f"ckpt_path={value}")
        assert run.returncode == 1 and run.stderr.startswith("error: ckpt_path="), run.stderr
        assert run.stderr.count("\n") == 1
    assert not list(script.folder.iterdir())


def test_a_resumed_run_ends_as_the_file_says_and_keeps_its_best(saved):
    trainer = saved.resume(saved.path)
    assert trainer.fit_loop.epoch_progress.current.completed == 2
    best = trainer.checkpoint_callback
    assert best.best_model_path == str(saved.folder / "checkpoints" / "best.ckpt")


def test_nothing_is_loaded_from_the_working_folder(saved, tmp_path, monkeypatch):
    """Below SLURM, Lightning takes any ``hpc_ckpt_*.ckpt`` for the run's own."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("NTASKS", "1"), ("JOB_NAME", "train"), ("JOB_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    torch.save({"state_dict": {}}, tmp_path / "hpc_ckpt_1.ckpt")
    connector = saved.trainer._checkpoint_connector
    assert isinstance(connector, CheckedConnector)
    for word in (None, "best", "last", "hpc", "registry:x"):
        assert connector._select_ckpt_path("fit", word, True, True) == word


def test_saving_prints_nothing_about_weights_only(saved, monkeypatch):
    log = "pytorch_lightning.trainer.connectors.checkpoint_connector.log.info"
    monkeypatch.setattr(log, lambda text: pytest.fail(text))
    assert "optimizer_states" in saved.trainer._checkpoint_connector.dump_checkpoint()
