"""Settings that are null get their values from the size of the data, and keep them."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.helpers.composition import compose_train
from twotower.run.derive import derive, rules, unset
from twotower.run.settings import DERIVED, fingerprint
from twotower.training.callbacks import EarlyStopping

TINY = (
    "data.reader.num_users=60",
    "data.reader.num_items=40",
    "data.reader.interactions_per_user=8",
    "data.k_core=0",
    "callbacks.progress=null",
    "callbacks.diagnostics=null",
    "trainer.enable_progress_bar=false",
)
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize(
    ("num_positives", "num_processes", "expected"),
    [
        (1_500, 1, (32, [], 0.3, 40, 12)),  # 47 steps: the smallest batch
        # 125 steps, 64 would give 63; 50,000 / 4,000 = 12.5, times .07 its root is .247
        (4_000, 1, (32, [], 0.25, 40, 12)),
        # 157 steps; 50,000 / 20,000 = 2.5, times 10 and 3 epochs; .07 times its root is .111
        (20_000, 1, (128, [], 0.11, 25, 8)),
        (49_999, 1, (256, [], 0.07, 10, 3)),
        (67_817, 1, (512, [256, 128], 0.07, 10, 3)),
        (10**8, 1, (512, [256, 128], 0.07, 10, 3)),
        (4_000, 2, (16, [], 0.25, 40, 12)),  # a batch is per process
        (67_817, 3, (170, [256, 128], 0.07, 10, 3)),
        (0, 64, (1, [], 0.3, 40, 12)),
    ],
)
def test_rules_by_hand(num_positives, num_processes, expected):
    values = rules(num_positives, num_processes)
    assert tuple(values.values()) == expected and tuple(values) == DERIVED


def test_only_null_is_derived_and_only_where_the_setting_exists():
    assert unset(compose_train("model=dat")) == list(DERIVED)
    own = ("data.batch_size=7", "model.hidden_dims=[]", "trainer.max_epochs=-1", "loss/task=bce")
    assert unset(compose_train(*own)) == ["callbacks.early_stopping.patience"]
    without = ("model=mf", "callbacks.early_stopping=null")
    assert unset(compose_train(*without)) == ["data.batch_size", "trainer.max_epochs"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_keep_their_values(name):
    """What an experiment does not state, its data give: ML-100K has 97,401, the fewest."""
    config = compose_train(f"experiment={name}")
    choices_of_the_command = {"model.hidden_dims", "loss.task.temperature"}
    assert choices_of_the_command.issuperset(unset(config))
    values = rules(97_401)
    assert values["model.hidden_dims"] == [256, 128] and values["loss.task.temperature"] == 0.07


def test_null_on_the_command_line_is_the_same_run():
    config = compose_train("data.batch_size=null", "model.hidden_dims=null")
    assert fingerprint(config) == fingerprint(compose_train())


def test_checkpoint_record_and_hydra_hold_the_derived_values(script):
    """An epoch of 299 interactions has 10 steps of 32."""
    given = ("trainer.max_epochs=1", "data.batch_size=null")
    run = script("train", *TINY, *given, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    shown = " ".join(run.stdout.split())
    assert (
        "derived from the 299 training interactions: data.batch_size=32 model.hidden_dims=[] "
        "loss.task.temperature=0.3 callbacks.early_stopping.patience=12"
    ) in shown
    assert "an epoch has 10 steps" in run.stderr
    settings = script.metrics("run")["settings"]
    assert settings["data.batch_size"] == 32 and settings["model.hidden_dims"] == "[]"
    assert settings["callbacks.early_stopping.patience"] == 12
    last = script.folder / "run" / "checkpoints" / "last.ckpt"
    about = torch.load(last, weights_only=True)["twotower"]
    assert about["config"]["data"]["batch_size"] == 32
    assert about["config"]["callbacks"]["early_stopping"]["patience"] == 12
    assert about["settings"] == settings
    composed = OmegaConf.load(script.folder / "run" / ".hydra" / "config.yaml")
    assert composed.data.batch_size == 32 and composed.model.hidden_dims == []
    # null stands for what the checkpoint holds, as in a sweep that continues its own run
    more = script("train", f"ckpt_path={last}", "data.batch_size=null", "trainer.max_epochs=2")
    assert more.returncode == 0, more.stderr
    assert "derived" not in more.stdout and script.metrics("run")["epochs"] == 2
    assert script.metrics("run")["settings"]["data.batch_size"] == 32
    test = script("evaluate", f"ckpt_path={last}")
    assert test.returncode == 0, test.stderr


def test_epochs_and_patience_reach_the_training(script):
    """Learning nothing, the run ends after the derived patience of 12 epochs."""
    run = script("train", *TINY, "optimizer.lr=0", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert script.metrics("run")["epochs"] == 13
    run = script("train", *TINY, "model=mf", "callbacks.early_stopping=null", "hydra.run.dir=all")
    assert run.returncode == 0, run.stderr
    assert script.metrics("all")["epochs"] == 40


@pytest.mark.parametrize("model", ["popularity", "ials"])
def test_models_in_closed_form(script, model):
    run = script("train", *TINY, f"model={model}", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert script.metrics("run")["settings"]["data.batch_size"] == 32


def test_a_stated_patience_stays():
    """Of several callbacks that stop early, only the one without a patience gets a derived one."""
    own, unstated = (EarlyStopping("val/ndcg@10", patience=patience) for patience in (7, None))
    loop = SimpleNamespace(max_epochs=None)
    trainer = SimpleNamespace(world_size=1, callbacks=[own, unstated], fit_loop=loop)
    data = SimpleNamespace(tables={"position/train": range(4_000)}, batch_size=0)
    derive(compose_train("model=dat"), data, trainer)
    assert (own.patience, unstated.patience, loop.max_epochs) == (7, 12, 40)
