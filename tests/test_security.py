"""Crafted checkpoints and .env files run no code, read no secret and write nowhere else."""

import os

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.helpers.composition import compose_train
from tests.helpers.crafted import CREATE, REFUSED, RUN, crafted
from tests.helpers.saved import Saved, changed
from twotower.errors import UserError
from twotower.run import build, environment
from twotower.run.about import recorded, write_record
from twotower.run.build import construct
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint
from twotower.run.checkpoint.file import naming
from twotower.run.checkpoint.restoring import with_own_files
from twotower.run.wandb_names import flatten

SECRET = "hunter2-of-the-environment"
LEFT_OUT = {  # what the command in hand decides
    "paths.data_dir": "/",
    "paths.cache_dir": "${oc.env:SECRET}",
    "data.data_dir": "/",
    "data.cache_dir": "../../elsewhere",
    "data.reader.url": "http://127.0.0.1:9/${oc.env:SECRET}",
    "data.reader.sha256": "0",
    "logger": RUN,
    "trainer.logger": RUN,
    "trainer.plugins": [RUN],
    "trainer.profiler": RUN,
    "trainer.default_root_dir": "/",
    "trainer.callbacks": [RUN],
    "trainer.strategy": RUN,
    "trainer._target_": "os.system",
    "callbacks.best._target_": "os.system",
    "callbacks.best.dirpath": "/",
    "callbacks.last.dirpath": "${oc.env:SECRET}",
    "callbacks.diagnostics.dirpath": "/",
    "hydra.run.dir": "/",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return Saved(tmp_path_factory.mktemp("run"))


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """A working folder that must stay empty, and a secret that no message may hold."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", SECRET)
    yield tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", REFUSED)
def test_a_class_that_a_checkpoint_may_not_name_is_refused(saved, guarded, key):
    path = crafted(saved, key, REFUSED[key])
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert (
        str(path) in str(error.value)
        and "\n" not in str(error.value)
        and SECRET not in str(error.value)
    )


@pytest.mark.parametrize("key", LEFT_OUT)
def test_what_the_command_decides_is_not_taken_from_a_checkpoint(saved, guarded, key):
    good = load_checkpoint(saved.path)["twotower"].config
    found = load_checkpoint(crafted(saved, key, LEFT_OUT[key]))
    assert found["twotower"].config == good
    config = saved.config(found)
    assert (
        config["data"]["data_dir"] == str(saved.folder / "data_dir")
        and "url" not in config["data"]["reader"]
    )


def test_texts_are_never_evaluated(saved, guarded):
    """Not even those that stand where a text may: a reader of tables and its columns, say."""
    text = "${oc.env:SECRET}"
    reader = {
        "_target_": "twotower.data.readers.table.Table",
        "interactions": text,
        "columns": {"user": text},
    }
    found = load_checkpoint(crafted(saved, "data.reader", reader))
    assert found["twotower"].config["data"]["reader"] == reader
    with pytest.raises(UserError) as error:
        saved.rebuild(crafted(saved, "data.reader", reader))
    assert SECRET not in str(error.value)
    built = construct("x", {"_target_": "builtins.dict", "a": [text], "b": {"c": CREATE}})
    assert built == {"a": [text], "b": {"c": CREATE}}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model", CREATE),
        ("negatives", CREATE),
        ("model.history._target_", "twotower.models.two_tower.TwoTower"),
        ("model._partial_", True),
        ("model._args_", [RUN["command"]]),
        ("model._recursive_", False),
        ("loss.task", {"_target_": "twotower.models.mf.MF"}),
        ("optimizer._partial_", False),
        ("callbacks.best.filename", "../../elsewhere"),
        ("callbacks.best.mode", "${oc.env:SECRET}"),
        ("trainer.precision", "${oc.env:SECRET}"),
    ],
)
def test_what_fits_no_part_ends_in_one_line(saved, guarded, place, value):
    path = crafted(saved, place, value)
    config = load_checkpoint(path)["twotower"].config
    with pytest.raises(UserError) as error, naming(path):
        build.build(saved.config(load_checkpoint(path)))[1].setup("fit")
        for name in ("trainer", "callbacks.best"):
            root, _, rest = name.partition(".")
            own = saved_config.select(compose_train(), name)
            node = OmegaConf.to_container(own, resolve=False) | saved_config.select(config, name)
            build.build_part({root: {rest: node} if rest else node}, name)
    assert "\n" not in str(error.value) and SECRET not in str(error.value)


@pytest.mark.parametrize("choice", ["../../evil", "/etc/x", "a/../b", "a\x1b[2J", "${oc.env:X}", 5])
def test_choices_are_names_of_options(saved, guarded, choice):
    path = saved.write(changed(saved.good(), ("twotower", "choices", "data"), choice))
    with pytest.raises(UserError, match=r"twotower\.choices\.data: "):
        load_checkpoint(path)


def best_of(checkpoint):
    return next(key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint"))


@pytest.mark.parametrize("path", ["{folder}/checkpoints/..", "{folder}/victim.txt", "local://x"])
def test_the_state_of_a_callback_deletes_no_file(saved, path):
    """Lightning removes the file that it takes for the worst of the best ones."""
    victim = saved.folder / "victim.txt"
    victim.write_text("precious")
    checkpoint, low = saved.good(), torch.tensor(-1.0)
    path = path.format(folder=saved.folder)
    checkpoint["callbacks"][best_of(checkpoint)] |= {
        "best_k_models": {path: low},
        "kth_best_model_path": path,
        "best_model_path": path,
        "best_model_score": low,
        "kth_value": low,
    }
    with pytest.raises(UserError, match="no checkpoint"):
        saved.resume(saved.write(checkpoint))
    assert victim.read_text() == "precious"


def test_the_files_of_a_callback_are_those_of_its_folder_now():
    state = {
        "best_k_models": {"/elsewhere/best.ckpt": torch.tensor(0.5)},
        "kth_best_model_path": "/elsewhere/best.ckpt",
        "best_model_path": "/elsewhere/best.ckpt",
        "dirpath": "/elsewhere",
    }
    found = with_own_files(state, "/run/checkpoints")
    own = "/run/checkpoints/best.ckpt"
    assert found["dirpath"] == "/run/checkpoints" and list(found["best_k_models"]) == [own]
    assert found["best_model_path"] == own and found["kth_best_model_path"] == own


def test_a_checkpoint_holds_no_path_and_no_secret(saved):
    text = repr(saved.good()["twotower"])
    assert (
        "${" not in text
        and str(saved.folder) not in text
        and "logger" not in saved.good()["twotower"]["config"]
    )


def test_the_commands_refuse_what_would_run(script):
    """Through the scripts, once."""
    small = (
        "data.reader.num_users=40",
        "data.reader.num_items=30",
        "data.reader.interactions_per_user=8",
        "model=popularity",
    )
    assert script("train", *small, "callbacks.progress=null", "hydra.run.dir=run").returncode == 0
    path = script.folder / "run/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["twotower"]["config"]["negatives"] = RUN
    torch.save(checkpoint, path)
    for name, *more in (
        ("evaluate",),
        ("train",),
        ("recommend", "user_id=1"),
        ("export", "output=served"),
    ):
        run = script(name, "ckpt_path=run/checkpoints/best.ckpt", *more)
        assert run.returncode == 1 and "negatives" in run.stderr and run.stderr.count("\n") == 1, (
            run.stderr
        )
    assert not (script.folder / "CANARY").exists() and not (script.folder / "served").exists()


ENVIRONMENT = """
TWOTOWER_DATA_DIR=from_file
WANDB_PROJECT='${SECRET}'
PYTHONPATH=/tmp/evil
LD_PRELOAD=/tmp/evil.so
PATH=/tmp
WANDB_BASE_URL=http://127.0.0.1:9
WANDB__EXECUTABLE=/tmp/evil
twotower_data_dir=x
export HYDRA_FULL_ERROR=1
"""


@pytest.fixture
def env_file(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FILE", tmp_path / "project" / ".env")
    monkeypatch.setattr(os, "environ", {"SECRET": SECRET, "PATH": "/bin"})
    (tmp_path / "project").mkdir()
    return tmp_path / "project" / ".env"


def test_env_file_sets_documented_keys_alone(env_file, capsys):
    env_file.write_text(ENVIRONMENT)
    environment.read_env_file()
    found = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    assert found == {
        "SECRET": SECRET,
        "PATH": "/bin",
        "TWOTOWER_DATA_DIR": "from_file",
        "WANDB_PROJECT": "${SECRET}",
    }
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "PYTHONPATH, LD_PRELOAD, PATH, WANDB_BASE_URL, WANDB__EXECUTABLE" in line
        and "/tmp/evil" not in line
    )
    os.environ["TWOTOWER_DATA_DIR"] = "mine"
    environment.read_env_file()
    assert os.environ["TWOTOWER_DATA_DIR"] == "mine"  # the environment comes first


def test_env_file_of_other_folders_is_not_read(env_file, monkeypatch):
    (env_file.parent.parent / ".env").write_text("TWOTOWER_DATA_DIR=above")
    (env_file.parent / "below").mkdir()
    (env_file.parent / "below" / ".env").write_text("TWOTOWER_DATA_DIR=below")
    monkeypatch.chdir(env_file.parent / "below")
    environment.read_env_file()
    assert "TWOTOWER_DATA_DIR" not in os.environ


def test_an_env_file_that_is_no_text_ends_in_one_line(env_file):
    env_file.write_bytes(b"A=\xff\xfe")
    with pytest.raises(UserError, match=r"\.env cannot be read"):
        environment.read_env_file()


def test_the_documented_keys_are_those_of_the_example():
    text = (ROOT / ".env.example").read_text()
    found = [line.lstrip("# ").split("=")[0] for line in text.splitlines() if "=" in line]
    assert sorted(found) == sorted(environment.KEYS) and environment.FILE == ROOT / ".env"
    for path in (ROOT / "src").rglob("*.py"):
        assert "load_dotenv" not in path.read_text(), path


LAUNCH = {"devices": 5000, "num_nodes": 10**9, "strategy": "ddp"}


@pytest.mark.parametrize("key", LAUNCH)
def test_a_checkpoint_starts_no_processes(saved, key):
    config = load_checkpoint(crafted(saved, f"trainer.{key}", LAUNCH[key]))["twotower"].config
    today = {"trainer": {"devices": 1, "num_nodes": 1, "strategy": "auto", "max_epochs": 3}}
    saved_config.take_up(today, config, set())
    assert today["trainer"][key] != LAUNCH[key] and today["trainer"]["max_epochs"] == 1


def test_records_repeat_no_address():
    address = "data.reader.url=https://me:hunter2@example.org/a.zip"
    given = ["model=dat", address, f"+{address}", "data.reader.mirror=x?token=hunter2", "seed=1"]
    assert recorded(given) == ["model=dat", "seed=1"]


def test_the_record_of_a_run_has_no_secret(tmp_path, monkeypatch):
    address = "+data.reader.url=https://me:hunter2@example.org/a.zip"
    given = ["logger=wandb", address, "+logger.api_key=hunter2"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", given, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.masked_copy(config, ["hydra"]))
    write_record(tmp_path, OmegaConf.masked_copy(config, ["data", "logger"]), is_resumed=False)
    texts = [
        (tmp_path / ".hydra" / f"{name}.yaml").read_text()
        for name in ("config", "hydra", "overrides")
    ]
    assert all("hunter2" not in text and "example.org/a.zip" in text for text in texts)


def test_no_address_is_sent_to_a_logger():
    config = {"data": {"reader": {"url": "https://me:hunter2@example.org", "folder": "ml-1m"}}}
    assert flatten({"data": "movielens_1m"}, config) == {
        "data": "movielens_1m",
        "data.reader.folder": "ml-1m",
    }
