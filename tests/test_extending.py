"""The examples of docs/extending.md, run as they are written."""

import json
import re
import shlex
import sys

import pytest
import torch

from tests.conftest import ROOT
from twotower import load
from twotower.errors import UserError

DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"`([\w/]+\.\w+)`\n\n```\w+\n(.*?)```", DOCUMENT, re.S))
COMMANDS = re.search(r"```sh\n(.*?)```", DOCUMENT, re.S)[1].replace("\\\n", " ").splitlines()
WORLD = (
    "data.reader.num_users=60",
    "data.reader.num_items=40",
    "data.reader.interactions_per_user=8",
    "data.k_core=0",
)
QUICK = (
    "data.batch_size=4",  # 50 steps an epoch and more: fewer are warned of
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.diagnostics.plots=false",
)


@pytest.fixture
def mylab(script, monkeypatch):
    """The package of the document on the path, and its data."""
    for path, text in FILES.items():
        if path.startswith("mylab/"):
            file = script.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    for folder in ("mylab", "mylab/conf"):
        (script.folder / folder / "__init__.py").touch()
    (script.folder / "data" / "shop").mkdir(parents=True)
    clicks = [
        f"c{user},{'abc'[user % 3]}{(user * step + step) % 15},{step}"
        for user in range(60)
        for step in range(1, 9)
    ]
    log = script.folder / "data" / "shop" / "clicks.csv"
    log.write_text("\n".join(["customer,article,day", *clicks]))
    monkeypatch.syspath_prepend(script.folder)
    script.env["PYTHONPATH"] = str(script.folder)
    yield script
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


def arguments(line, *more):
    """Arguments of the script fixture for a command of the document."""
    _, path, *overrides = shlex.split(line)
    return path.removeprefix("src/").removesuffix(".py"), *overrides, *more


def succeeds(script, *command):
    run = script(*command)
    assert run.returncode == 0, run.stderr
    return run


def test_the_document_is_whole():
    modules = [path for path in FILES if path.endswith(".py")]
    assert len(modules) == 7 and len(FILES) == 14
    for path in modules:  # each has a YAML of the same name with its target
        name = path.rsplit("/", 1)[1].removesuffix(".py")
        (option,) = [text for other, text in FILES.items() if other.endswith(f"/{name}.yaml")]
        module = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
        assert f"_target_: {module}." in option


def test_an_own_package_trains_resumes_evaluates_recommends_and_exports(mylab):
    train, resume, evaluate, recommend = COMMANDS
    first = succeeds(mylab, *arguments(train, *QUICK, "trainer.max_epochs=1"))
    assert "note" not in first.stderr and "warning" not in first.stderr
    succeeds(mylab, *arguments(resume, *QUICK[1:], "trainer.max_epochs=2"))
    record = mylab.metrics("outputs/mine")
    assert record["epochs"] == 2 and record["data"] == "shop" and 0 <= record["test"]["first"] <= 1
    assert "val/item_norm" in (mylab.folder / "outputs/mine/metrics.csv").read_text()
    succeeds(mylab, *arguments(evaluate, "output=again.json"))
    again = json.loads((mylab.folder / "again.json").read_text())
    assert again["test"] == record["test"]
    asked = succeeds(mylab, *arguments(recommend, "format=json"))
    assert len(json.loads(asked.stdout)["found"]) > 0
    best = mylab.folder / "outputs/mine/checkpoints/best.ckpt"
    places = {name: mylab.folder / name.removesuffix("_dir") for name in ("data_dir", "cache_dir")}
    assert len(load(best, **places, trusted=["mylab."]).recommend("c7", 3)) == 3
    with pytest.raises(UserError, match=r"give trusted=\[mylab\.\]"):
        load(best, **places)
    for name, *more in (("evaluate",), ("train",), ("recommend", "user_id=c7")):
        run = mylab(name, f"ckpt_path={best}", *more)
        assert (
            run.returncode == 1 and "trusted=[mylab.]" in run.stderr and run.stderr.count("\n") == 1
        )
    mylab.env["TWOTOWER_TRUSTED"] = "mylab."
    succeeds(mylab, "evaluate", f"ckpt_path={best}")
    pytest.importorskip("onnx")
    succeeds(mylab, "export", f"ckpt_path={best}", "output=exported")


def test_a_sweep_resumes_with_an_own_package(mylab):
    """A job with a checkpoint that needs trusted= is not trained again without it."""
    search = "hydra.searchpath=[pkg://mylab.conf]"
    chosen = ("-m", search, "model=factors", "seed=0,1", *QUICK, "trainer.max_epochs=1")
    first = mylab("train", *chosen, *WORLD)
    assert first.returncode == 0, first.stderr
    assert "commands will refuse this run's checkpoints" in first.stderr
    (folder,) = (mylab.folder / "outputs" / "sweeps").iterdir()
    (one,) = folder.glob("*seed-0*")
    (one / "metrics.json").unlink()  # as if it had been killed
    before = torch.load(one / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    refused = mylab("train", *chosen, *WORLD)
    assert refused.returncode == 1 and "trusted=[mylab.]" in refused.stderr
    again = succeeds(mylab, "train", *chosen, *WORLD, "trusted=[mylab.]")
    assert f"{one.name}: continues" in again.stdout and "seed-1" in again.stdout
    assert torch.load(one / "checkpoints/last.ckpt", weights_only=True)["global_step"] == before


@pytest.mark.slow
def test_a_job_in_two_processes_finds_the_package(mylab):
    search = "hydra.searchpath=[pkg://mylab.conf]"
    two = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    chosen = ("-m", search, "model=factors", "seed=0", "trusted=[mylab.]", *QUICK, *WORLD, *two)
    run = mylab("train", *chosen, "trainer.max_epochs=1")
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_find_the_package(mylab, launcher):
    """In processes that start from the environment alone."""
    search = "hydra.searchpath=[pkg://mylab.conf]"
    chosen = ("-m", search, "model=factors", "seed=0,1", "trusted=[mylab.]", *QUICK, *WORLD)
    command = (*chosen, "trainer.max_epochs=1", f"hydra/launcher={launcher}")
    process = mylab.popen("train", *command)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def test_a_package_that_is_not_on_the_path_is_named(script):
    run = script("train", "model._target_=nowhere.models.Mine")
    assert run.returncode == 1 and "there is no package nowhere: set PYTHONPATH" in run.stderr
    assert run.stderr.count("\n") == 1
