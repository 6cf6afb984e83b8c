"""Damaged checkpoints end in one line that names the file; good ones of this and of earlier versions are taken up."""

import copy
import os
import random
import zipfile

import pytest
import torch

from tests.conftest import ROOT
from tests.helpers.composition import compose_train
from tests.helpers.losses import make_alignment
from tests.helpers.saved import SMALL, Saved, changed
from twotower.errors import UserError
from twotower.run import build
from twotower.run.checkpoint.checkpoints import load_checkpoint
from twotower.run.checkpoint.file import checkpoint_file
from twotower.run.checkpoint.restoring import CheckedConnector
from twotower.run.checkpoint.saved_config import resolved
from twotower.training.task import RetrievalTask

WRONG = (
    None,
    "text",
    -1,
    10**30,
    1.5,
    float("nan"),
    [],
    {},
    [1, "a", None],
    {"a": 1},
    True,
    torch.zeros(3),
    torch.full((), float("nan")),
    torch.zeros(2, 2).to_sparse(),
    torch.zeros(3, dtype=torch.complex64),
    "${oc.env:HOME}",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return Saved(tmp_path_factory.mktemp("run"))


def places(node, path=()):
    """Every path in a checkpoint; of the many metrics and weights some."""
    if path:
        yield path
    pairs = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in list(pairs)[:25]:
        yield from places(value, (*path, key))


def try_all(saved, checkpoint):
    """Each use must work or end in one line with the file's name; returns how many ended."""
    path, ended = saved.write(checkpoint), 0
    for use in (saved.rebuild, saved.restore):
        try:
            use(path)
        except UserError as error:
            ended += 1
            if use == saved.rebuild:
                assert str(path) in str(error), error
            assert "\n" not in str(error), error
    return ended


def test_a_value_of_another_kind_or_none_ends_in_one_line(saved):
    good, rng = saved.good(), random.Random(0)
    every = list(places(good))
    ended = 0
    for path in rng.sample(every, 40):
        ended += try_all(saved, changed(good, path, rng.choice((..., *WRONG)))) > 0
    assert ended > 20


@pytest.mark.slow
def test_every_value_of_another_kind_or_none_ends_in_one_line(saved):
    good = saved.good()
    for path in places(good):
        for value in (..., *WRONG):
            try_all(saved, changed(good, path, value))


@pytest.mark.parametrize(
    "key",
    ["twotower", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch"],
)
@pytest.mark.parametrize("value", [..., None, 5, [], {}], ids=str)
def test_no_part_can_be_left_out_or_be_empty(saved, key, value):
    if (key, value) in (("callbacks", {}), ("lr_schedulers", []), ("epoch", 5)):
        return  # as good ones may be
    assert try_all(saved, changed(saved.good(), (key,), value)) > 0


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
    message = rf"{path.name}: state_dict: {name} has the shape \({rows - 1}, 4\), the model's is \({rows}, 4\)"
    with pytest.raises(UserError, match=message):
        saved.rebuild(path)
    with pytest.raises(UserError, match="has the shape"):
        saved.resume(path)
    bad = weight.clone()
    bad[1, 1] = float("nan")
    with pytest.raises(UserError, match="holds numbers that are not finite"):
        saved.rebuild(saved.write(changed(good, ("state_dict", name), bad)))


MODELS = [path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")]
HISTORIES = [path.stem for path in (ROOT / "conf" / "model" / "history").glob("*.yaml")]
KINDS = [(f"model={name}",) for name in MODELS] + [
    ("model=dat", f"model/history={name}") for name in HISTORIES
]


@pytest.mark.parametrize("kind", [*KINDS, ("model=dat", "model.sharding=row")], ids=" ".join)
def test_every_model_is_compared_with_weights_without_memory_for_it(saved, kind):
    config, _ = resolved(
        compose_train(
            *kind, *SMALL[1:6], f"paths.run_dir={saved.folder}", *saved.paths("paths.{}={}")
        )
    )
    data, task = build.build(config, {})
    build._check_model(config, data, task.state_dict())
    if weights := {
        name: value[..., :-1]
        for name, value in task.state_dict().items()
        if name.startswith("model.")
    }:
        with pytest.raises(UserError, match="has the shape"):
            build._check_model(config, data, weights)


def test_optimizer_states_must_fit_the_model_and_the_optimizer(saved):
    good = saved.good()
    where = ("optimizer_states", 0, "state", 0)
    for path, value, message in (
        ((*where, "exp_avg"), ..., "has no tensor exp_avg"),
        ((*where, "exp_avg_sq"), torch.zeros(2, 2), "has the shape"),
        (
            ("optimizer_states", 0, "param_groups", 0, "lr"),
            "text",
            "lr is 'text', where a number belongs",
        ),
        (("optimizer_states", 0, "param_groups", 0, "betas"), (0.9, "a"), "betas.1 is 'a'"),
        (("optimizer_states", 0, "param_groups", 0, "params"), [0], "is of 1 parameters"),
    ):
        with pytest.raises(UserError, match=message):
            saved.restore(saved.write(changed(good, path, value)))


def test_a_truncated_file_is_none(saved, tmp_path):
    whole = saved.path.read_bytes()
    path = tmp_path / "cut.ckpt"
    for size in (0, 1, 3, 4, 5, 100, *range(1000, len(whole), len(whole) // 20), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.ckpt"):
            load_checkpoint(path)


def test_a_zip_with_less_or_more_than_ours_is_none(saved, tmp_path):
    with zipfile.ZipFile(saved.path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    for left_out in [
        name for name in entries if name.endswith(("data.pkl", "data/0", "version", "byteorder"))
    ]:
        path = tmp_path / "missing.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                if name != left_out:
                    archive.writestr(name, content)
        try:
            load_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error)
    path = tmp_path / "compressed.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is compressed"):
        load_checkpoint(path)


def test_containers_in_themselves_end(saved):
    for make in (looping, growing):
        path = saved.write(
            changed(saved.good(), ("twotower", "config", "data", "reader", "more"), make())
        )
        with pytest.raises(UserError, match=r"nested too deeply|more than a config"):
            load_checkpoint(path)


def looping():
    node = {}
    node |= {"a": node, "b": node}
    return node


def growing():
    node = ["x"]
    for _ in range(12):
        node = [node] * 9
    return node


def test_what_is_no_checkpoint_is_told_from_its_path(tmp_path):
    (tmp_path / "README.md").write_text("# Hello")
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
    for path, message in (
        (tmp_path / "README.md", "cannot be read as a checkpoint"),
        (tmp_path / "none.ckpt", "there is no such file"),
        (tmp_path / "README.md" / "x", "there is no such file"),
        (tmp_path / "pipe.ckpt", "is no ordinary file"),
        ("/dev/zero", "is no ordinary file"),
        (tmp_path / "run", "is a folder: give .*/run/checkpoints/best.ckpt"),
        ("last", "there is no such file"),
        ("a\0b", "there is no such file"),
        *((value, "is no path") for value in (0, 7, "", True, 1.5, ["a"], {}, None)),
    ):
        with pytest.raises(UserError, match=message):
            checkpoint_file(path)


def test_a_wrong_ckpt_path_leaves_no_folder(script):
    (script.folder / "README.md").write_text("# Hello")
    for name, value in (("train", "0"), ("train", "README.md"), ("evaluate", "/dev/zero")):
        run = script(name, f"ckpt_path={value}")
        assert (
            run.returncode == 1
            and run.stderr.startswith("error: ckpt_path=")
            and run.stderr.count("\n") == 1
        ), run.stderr
    assert [path.name for path in script.folder.iterdir()] == ["README.md"]


def test_a_resumed_run_ends_as_the_file_says_and_keeps_its_best(saved):
    trainer = saved.resume(saved.path)
    assert trainer.fit_loop.epoch_progress.current.completed == 2
    best = next(
        callback
        for callback in trainer.callbacks
        if type(callback).__name__.startswith("ModelCheckpoint")
    )
    assert best.best_model_path == str(saved.folder / "checkpoints" / "best.ckpt")


def test_nothing_is_loaded_from_the_working_folder(saved, tmp_path, monkeypatch):
    """Below SLURM, Lightning takes any ``hpc_ckpt_*.ckpt`` for the run's own."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    torch.save({"state_dict": {}}, tmp_path / "hpc_ckpt_1.ckpt")
    connector = saved.trainer._checkpoint_connector
    assert isinstance(connector, CheckedConnector)
    for word in (None, "best", "last", "hpc", "registry:x"):
        assert connector._select_ckpt_path("fit", word, True, True) == word


def test_saving_says_nothing_about_weights_only(saved, monkeypatch):
    log = "pytorch_lightning.trainer.connectors.checkpoint_connector.log.info"
    monkeypatch.setattr(log, lambda text: pytest.fail(text))
    assert "optimizer_states" in saved.trainer._checkpoint_connector.dump_checkpoint()


def test_references_of_earlier_versions_are_looked_up_and_no_other(saved):
    checkpoint = saved.good()
    about = checkpoint["twotower"]
    config = about["config"]
    for key in ("repeats", "settings"):
        del about[key]
    expected = copy.deepcopy(config)
    config["data"] |= {
        "seed": "${seed}",
        "data_dir": "${paths.data_dir}",
        "cache_dir": "${oc.env:X,cache}",
    }
    config["model"]["dim"] = "${model.embedding_dim}"
    config["paths"] = {"data_dir": "${oc.env:TWOTOWER_DATA_DIR,data}"}
    config["callbacks"]["best"]["dirpath"] = "${paths.run_dir}/checkpoints"
    config["trainer"]["_target_"] = "pytorch_lightning.Trainer"
    config["logger"] = {
        "_target_": "twotower.training.loggers.csv_logger.RunCSVLogger",
        "save_dir": "${paths.run_dir}",
    }
    found = load_checkpoint(saved.write(checkpoint))["twotower"]
    assert found.config == expected and set(found.repeats) == {"data.seed", "model.dim"}
    assert "data.seed" not in found.settings and found.settings["model._target_"]
    for text in (
        "${oc.env:HOME}",
        "${.hidden_dims}x",
        "${model.nothing}",
        "${model}",
        "${a.${b}}",
        "a${seed}",
        "${model.dim}",
    ):
        config["model"]["dim"] = text
        with pytest.raises(
            UserError, match=r"model\.dim=.* which a checkpoint may not leave to be evaluated"
        ):
            load_checkpoint(saved.write(checkpoint))


def test_a_tensor_must_have_its_numbers_in_the_file(saved):
    """Strides of zero make one number a trillion, which nobody can look through."""
    checkpoint = saved.good()
    checkpoint["callbacks"]["Diagnostics"]["train"] = [
        {"position": torch.zeros(1, dtype=torch.long).expand(10**12), "seed": 1}
    ]
    with pytest.raises(UserError, match="no row of numbers"):
        saved.restore(saved.write(checkpoint))


def test_states_of_earlier_versions_lack_lists(saved):
    checkpoint = saved.good()
    del checkpoint["callbacks"]["Diagnostics"]["train"]
    found = saved.restore(saved.write(checkpoint))["callbacks"]["Diagnostics"]
    assert found == {**checkpoint["callbacks"]["Diagnostics"], "train": []}


def test_an_optimizer_of_other_groups_is_told(saved):
    checkpoint = saved.good()
    checkpoint["optimizer_states"][0]["param_groups"] *= 2
    with pytest.raises(UserError, match="2 groups of parameters, where AdamW has 1"):
        saved.restore(saved.write(checkpoint))
