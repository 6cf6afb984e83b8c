"""The real W&B client against a local server: what arrives, and what happens without an answer."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import yaml

from tests.conftest import ROOT
from tests.helpers.waiting import finish
from tests.helpers.wandb_backend import KEY, Backend, closed_port, silent_server
from twotower.errors import UserError
from twotower.run.wandb_names import flatten, variant
from twotower.training.loggers.wandb_logger import RunWandbLogger, closing_wandb

WORLD = {
    "num_users": 60,
    "num_items": 40,
    "num_categories": 3,
    "num_clusters": 6,
    "interactions_per_user": 8,
}
TINY = [
    *(f"data.reader.{name}={value}" for name, value in WORLD.items()),
    *(
        "data.k_core=0",
        "data.batch_size=128",
        "negatives.num=16",
        "model.hidden_dims=[8]",
        "model.dim=8",
    ),
    *(
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
        "callbacks.progress=null",
        "logger=wandb",
    ),
]


@pytest.fixture
def backend():
    server = Backend()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """No key, no settings, no network of the user's; a W&B client that starts afresh."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    folders = {
        "HOME": "home",
        "WANDB_CONFIG_DIR": "config",
        "WANDB_CACHE_DIR": "wandb_cache",
        "WANDB_DATA_DIR": "wandb_data",
    }
    for name, folder in {**folders, "NETRC": "netrc"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("WANDB_BASE_URL", closed_port())
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


@pytest.fixture
def online(home, backend):
    home.setenv("WANDB_BASE_URL", backend.url)
    home.setenv("WANDB_API_KEY", KEY)
    return backend


@pytest.fixture
def train(home, script):
    def run(*overrides, options=TINY):
        script.env = {
            key: value
            for key, value in script.env.items()
            if key.startswith(("TWOTOWER_", "OMP", "COLUMNS"))
        }
        return script("train", *options, *overrides)

    return run


def _begin(logger, choices, overrides, resumed):
    group = variant(choices, overrides)
    logger.begin(group, list(choices.values()), flatten(choices, {"seed": 1}), resumed=resumed)


def logger(folder, **changes):
    settings = {"project": "p", "entity": None, "name": None, "group": None, "tags": []}
    limits = {"offline": False, "init_timeout": 2, "finish_timeout": 3}
    return RunWandbLogger(str(folder), **{**settings, **limits, **changes})


def begin(folder, *, resumed=False, **changes):
    started = logger(folder, **changes)
    _begin(started, {"model": "dat", "data": "synthetic"}, ["loss.lambda3=0"], resumed)
    return started


def test_config_is_flat_and_tells_no_folder():
    settings = {
        "loss": {"_target_": "x.Y", "lambda1": 0.5, "task": {"temperature": 0.07}},
        "model": {"hidden_dims": [256, 128], "user_features": None},
        "data": {"data_dir": "/home/me/data", "reader": {"interactions": "/home/me/clicks.csv"}},
        "paths": {"run_dir": "/home/me/outputs"},
        "logger": {"project": "p"},
        "ckpt_path": None,
        "seed": 1,
    }
    choices = {
        "model": "dat",
        "loss/task": "bce",
        "experiment": None,
        "paths": "default",
        "logger": "wandb",
    }
    assert flatten(choices, settings) == {
        "model": "dat",
        "loss/task": "bce",
        "loss.lambda1": 0.5,
        "loss.task.temperature": 0.07,
        "model.hidden_dims": [256, 128],
        "model.user_features": None,
        "data.data_dir": "data",
        "data.reader.interactions": "clicks.csv",
        "seed": 1,
    }


def test_a_run_arrives(online, train, tmp_path):
    done = train("loss.lambda3=0", "seed=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    (run,) = online.runs.values()
    assert done.stderr.startswith(
        f"W&B: {online.url}/e/twotower/runs/{(tmp_path / 'run/wandb/run_id').read_text()}\n"
    )
    named = "dat synthetic num_users=60 num_items=40"
    assert run.about["displayName"].startswith(named) and run.about["displayName"].endswith(
        " seed=1"
    )
    assert run.about["groupName"].startswith(named) and "seed" not in run.about["groupName"]
    assert run.about["tags"] == ["dat", "synthetic"] and run.about["project"] == "twotower"
    assert (run.config["loss.lambda1"], run.config["loss.lambda3"], run.config["seed"]) == (
        0.5,
        0,
        1,
    )
    assert (run.config["model"], run.config["loss/task"], run.config["model.dim"]) == (
        "dat",
        "sampled_softmax",
        8,
    )
    assert not [value for value in run.config.values() if str(value).startswith("/")]

    record = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (
        len(run.logged("val/ndcg@10")) == 2
        and len(run.logged("train/loss")) == run.logged("trainer/global_step")[-1]
    )
    assert run.logged("test/ndcg@10") == [pytest.approx(record["test"]["ndcg@10"])]
    assert run.summary["val/ndcg@10"] == record["val"]["ndcg@10"]
    assert run.summary["test/head/ndcg@10"] == pytest.approx(record["test"]["head/ndcg@10"])
    assert run.summary["popularity/ndcg@10"] == pytest.approx(record["popularity"]["ndcg@10"])
    assert run.config["callbacks.early_stopping.patience"] == 12  # derived from the data
    (table,) = [
        json.loads(body)
        for name, body in run.files.items()
        if "results" in name and name.endswith(".table.json")
    ]
    cells = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert (
        cells["ndcg@10"]["test"] == record["test"]["ndcg@10"]
        and cells["mrr"]["tail"] == record["test"]["tail/mrr"]
        and cells["mrr"]["popularity"] == record["popularity"]["mrr"]
    )
    drawn = {path.stem for path in (tmp_path / "run/plots").glob("*.png")}
    assert drawn == {
        Path(name).name.split("_" + name.split("_")[-2])[0]
        for name in run.files
        if name.endswith(".png")
    }
    assert run.exit_code == 0 and wandb.run is None

    assert KEY not in done.stdout + done.stderr and not [
        body for body in online.bodies if KEY in body
    ]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"last.ckpt", "config.yaml", "metrics.json", "debug-internal.log"} <= {
        path.name for path in files
    }
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_jobs_of_a_multirun_are_runs_of_their_own_and_a_failing_one_is_seen(online, train):
    folders = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}"]
    done = train(
        "loss.lambda1=0,0.25",
        "data.k_core=0,1000",
        "loss.lambda2=0",
        *folders,
        options=["-m", *TINY],
    )
    assert done.returncode == 1 and "no interaction is left" in done.stderr
    arrived = {
        run.config["loss.lambda1"]: run
        for run in online.runs.values()
        if run.config["data.k_core"] == 0
    }
    failed = [run.exit_code for run in online.runs.values() if run.config["data.k_core"] == 1000]
    assert ({weight: run.exit_code for weight, run in arrived.items()}, failed) == (
        {0: 0, 0.25: 0},
        [1, 1],
    )
    assert len(arrived[0].logged("val/ndcg@10")) == len(arrived[0.25].logged("val/ndcg@10")) == 2
    assert "train/mimic_user" not in arrived[0].history[0] and arrived[0.25].logged(
        "train/mimic_user"
    )


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_its_w_and_b_run(online, train):
    train("hydra.run.dir=run")
    (name,) = online.runs
    points = len(online.runs[name].logged("val/ndcg@10"))
    done = train("ckpt_path=run/checkpoints/last.ckpt", "trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    assert list(online.runs) == [name]
    assert points == 2 and len(online.runs[name].logged("val/ndcg@10")) == 3
    assert online.runs[name].config["trainer.max_epochs"] == 3
    train("hydra.run.dir=run")  # anew, in the same folder
    assert len(online.runs) == 2


def test_without_a_key_a_run_is_logged_offline(home, tmp_path, capsys):
    with closing_wandb():
        begin(tmp_path).log_metrics({"val/ndcg@10": 0.5}, step=1)
        assert wandb.run.offline
    line = capsys.readouterr().err
    assert line.startswith(
        "warning: W&B is offline: there is no key "
        "(WANDB_API_KEY in the environment or in .env, or `wandb login`)"
    )
    folder = line.split("wandb sync ")[1].split()[0]
    assert line.count("\n") == 1 and list(Path(folder).glob("run-*.wandb"))


def test_offline_can_be_asked_for(home, tmp_path, capsys):
    with closing_wandb():
        begin(tmp_path, offline=True)
    assert capsys.readouterr().err.startswith("W&B is offline; wandb sync ")


def test_a_server_that_refuses_connections_costs_no_time(home, tmp_path, capsys):
    home.setenv("WANDB_API_KEY", KEY)
    with closing_wandb():
        begin(tmp_path, init_timeout=30)
        assert wandb.run.offline
    assert (
        f"warning: W&B is offline: {os.environ['WANDB_BASE_URL']} cannot be reached; wandb sync "
        in capsys.readouterr().err
    )


def test_a_server_that_never_answers_costs_the_time_out(home, tmp_path, capsys):
    home.setenv("WANDB_API_KEY", KEY)
    with silent_server() as url, closing_wandb():
        home.setenv("WANDB_BASE_URL", url)
        started = time.monotonic()
        begin(tmp_path, init_timeout=1)
        assert wandb.run.offline and time.monotonic() - started < 15
    assert f"{url} did not answer within 1 s; wandb sync " in capsys.readouterr().err


def test_a_server_that_fails_its_queries_is_given_the_time_out(online, tmp_path, capsys):
    online.status = 503
    with closing_wandb():
        started = time.monotonic()
        begin(tmp_path, init_timeout=1)
        assert wandb.run.offline and time.monotonic() - started < 15
        assert (tmp_path / "wandb/run_id").read_text() == wandb.run.id
    assert f"W&B is offline: {online.url} did not take the run: " in capsys.readouterr().err


@pytest.mark.parametrize("key", ["abc", f"{KEY}!", f"{KEY} "])
def test_a_key_of_wrong_form_is_refused(online, home, tmp_path, key):
    home.setenv("WANDB_API_KEY", key)
    with pytest.raises(
        UserError, match=r"^W&B cannot use the key|WANDB_ .* wrong: API key"
    ) as error:
        begin(tmp_path)
    assert key not in str(error.value)


def test_a_refused_key_is_an_error_of_the_user(online, tmp_path):
    online.status = 401
    with pytest.raises(
        UserError,
        match=f"^{online.url} refused the run with error 401.*check WANDB_API_KEY, logger.entity",
    ):
        begin(tmp_path)


def test_a_server_that_dies_neither_stops_nor_holds_up_the_run(online, tmp_path, capsys):
    started = time.monotonic()
    with closing_wandb():
        run = begin(tmp_path, init_timeout=1, finish_timeout=1)
        run.log_metrics({"train/loss": 1.0}, step=1)
        online.close()
        for step in range(2, 100):
            run.log_metrics({"train/loss": 1.0}, step=step)
        run.log_results(["metric", "test"], [["mrr", 0.5]], {"val/mrr": 0.5}, tmp_path / "none")
        folder = Path(wandb.run.dir).parent
    assert time.monotonic() - started < 20
    later = f"wandb sync --include-online {folder} sends the run later"
    line = f"warning: W&B: not all was sent in time; {later}"
    assert line in capsys.readouterr().err.replace("\n", "")


@pytest.mark.skipif(not shutil.which("pgrep"), reason="finds the process by pgrep")
def test_a_client_process_that_dies_does_not_stop_the_run(home, tmp_path, capsys):
    with closing_wandb():
        run = begin(tmp_path, offline=True)
        found = subprocess.run(
            ["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True
        )
        for child in found.stdout.split():
            os.kill(int(child), signal.SIGKILL)
        for step in range(100):
            run.log_metrics({"train/loss": 1.0}, step=step)
            time.sleep(0.01)
        run.log_results(["metric", "test"], [["mrr", 0.5]], {"val/mrr": 0.5}, tmp_path)
    assert capsys.readouterr().err.count("and the run continues without it") == 1
    with closing_wandb():
        begin(tmp_path, offline=True).log_metrics({"train/loss": 1.0}, step=1)
    assert "goes on without it" not in capsys.readouterr().err


def test_a_failing_job_ends_its_run_as_failed(online, tmp_path):
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), closing_wandb():
            begin(tmp_path / error.__name__)
            raise error
    assert [run.exit_code for run in online.runs.values()] == [1, 255, 255]


def test_disabled_means_disabled(home, tmp_path, capsys):
    home.setenv("WANDB_MODE", "disabled")
    with closing_wandb():
        begin(tmp_path).log_metrics({"a": 1.0})
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())


def test_names_say_what_is_computed(home, tmp_path):
    started = logger(tmp_path, offline=True, tags=["paper"])
    overrides = [
        "model=dat",
        "loss.lambda3=0",
        "+trainer.limit_val_batches=1",
        "seed=1",
        "data.reader.items=/home/me/items.csv",
    ]
    with closing_wandb():
        _begin(
            started, {"model": "dat", "data": "table"}, [*overrides, "~callbacks.progress"], False
        )
        named = (
            "dat table lambda3=0 limit_val_batches=1 items=items.csv@d741"  # a hash of the folder
        )
        assert wandb.run.name == f"{named} seed=1"
        assert (wandb.run.group, wandb.run.tags) == (named, ("dat", "table", "paper"))


@pytest.fixture
def cli(online, tmp_path):
    """``wandb`` at the command line, in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folders = {
        name: str(tmp_path / name.split("_")[1].lower())
        for name in ("TWOTOWER_OUTPUT_DIR", "TWOTOWER_CACHE_DIR")
    }
    env = {
        **os.environ,
        "PATH": path,
        "WANDB_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        **folders,
    }

    def run(*arguments):
        done = subprocess.run(
            ["wandb", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_an_agent_runs_what_a_sweep_gives_it(online, cli, tmp_path):
    sweep = yaml.safe_load((ROOT / "sweeps/dat_lambdas_grid.yaml").read_text())
    del sweep["parameters"]["experiment"]
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep))
    code, said = cli("sweep", "--project", "twotower", "--entity", "e", str(file))
    assert code == 0 and "wandb agent e/twotower/s1" in said
    assert yaml.safe_load(online.sweep)["parameters"]["loss.lambda3"]["values"] == [0, 0.1, 1]

    tiny = {key: value for key, _, value in (option.partition("=") for option in TINY)}
    online.schedule = {
        "run1": {**tiny, "loss.lambda1": 0, "loss.lambda3": 0.1, "seed": 1},
        "run2": {
            **tiny,
            "loss.lambda1": 0.5,
            "loss.lambda3": 0.1,
            "seed": 2,
            "data.k_core": 1000,
        },  # fails
    }
    code, said = cli("agent", "--count", "2", "e/twotower/s1")
    assert code == 0 and list(online.runs) == ["run1", "run2"]
    weights = ("loss.lambda1", "loss.lambda3", "seed")
    assert [[run.config[key] for key in weights] for run in online.runs.values()] == [
        [0, 0.1, 1],
        [0.5, 0.1, 2],
    ]
    assert {run.about["sweep"] for run in online.runs.values()} == {"s1"}
    first, failed = online.runs.values()
    assert (first.exit_code, failed.exit_code) == (0, 1), said
    assert len(first.logged("val/ndcg@10")) == 2 and len(first.logged("test/ndcg@10")) == 1
    assert first.logged("train/alignment") and not first.logged("train/mimic_user")
    assert "error: no interaction is left" in said and not failed.logged("val/ndcg@10")
    assert "locked" not in said and "Ignoring" not in said and KEY not in said


@pytest.mark.slow
def test_every_sweep_file_is_taken_by_the_client(online, cli):
    for path in sorted((ROOT / "sweeps").glob("*.yaml")):
        code, said = cli("sweep", "--project", "twotower", "--entity", "e", str(path))
        assert code == 0 and "wandb agent e/twotower/s1" in said and "WARNING" not in said, said
        assert (
            yaml.safe_load(online.sweep)["parameters"].keys()
            == yaml.safe_load(path.read_text())["parameters"].keys()
        )


@pytest.mark.slow
def test_what_was_logged_offline_is_sent_later(online, train, cli, tmp_path, monkeypatch):
    """Also what a resumed run logged, into the same W&B run."""
    monkeypatch.delenv("WANDB_API_KEY")
    folders = []
    for overrides in (
        ["hydra.run.dir=run"],
        ["ckpt_path=run/checkpoints/last.ckpt", "trainer.max_epochs=3"],
    ):
        done = train(*overrides)
        assert done.returncode == 0 and not online.runs
        folders.append(str(tmp_path / done.stderr.split("wandb sync ")[1].split()[0]))
        time.sleep(1)  # W&B's folders are named by the second
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    code, said = cli("sync", *folders)
    assert code == 0, said
    ((name, run),) = online.runs.items()
    assert name == (tmp_path / "run/wandb/run_id").read_text() and run.about[
        "displayName"
    ].startswith("dat synthetic")
    assert (
        len(run.logged("val/ndcg@10")) == 3
        and run.config["loss.lambda1"] == 0.5
        and run.exit_code == 0
    )
    assert [name for name in run.files if name.endswith(".table.json")] and [
        name for name in run.files if name.endswith(".png")
    ]


@pytest.mark.slow
def test_training_goes_on_when_the_server_dies(online, script, tmp_path):
    limits = ["logger.init_timeout=2", "logger.finish_timeout=2", "trainer.max_epochs=12"]
    limits += ["callbacks.early_stopping=null", "callbacks.diagnostics=null"]
    del script.env["WANDB_MODE"]
    process = script.popen("train", *TINY, *limits, "hydra.run.dir=run")
    while process.poll() is None and not (tmp_path / "run/checkpoints/last.ckpt").exists():
        time.sleep(0.05)
    online.close()
    assert online.runs and process.poll() is None
    started = time.monotonic()
    out, err = finish(process)
    assert process.returncode == 0, err
    assert (
        "warning: W&B: not all was sent in time; wandb sync --include-online run/wandb/run-" in err
    )
    assert script.metrics("run")["epochs"] == 12
    assert time.monotonic() - started < 90


def test_two_variants_never_share_a_name():
    """W&B averages the runs of a group: it would take those of two variants for seeds of one."""
    choices = {"model": "dat", "data": "table"}
    variants = [
        ["data.history_length=2"],
        ["data.history_length=4"],
        ["data/split=temporal"],
        ["trainer.precision=bf16-mixed"],
        ["callbacks.early_stopping.patience=1"],
        ["~callbacks.early_stopping"],
        ["data.reader.interactions=a/clicks.csv"],
        ["data.reader.interactions=b/clicks.csv"],
        [f"model.history={'x' * 150}"],
        [f"model.history={'x' * 149}y"],
    ]
    names = [variant(choices, given) for given in variants]
    assert len(set(names)) == len(names) and all(len(name) <= 112 for name in names), names
    seeds = [
        variant(choices, [f"seed={seed}", "callbacks.speed.compile=true", "paths.output_dir=x"])
        for seed in (0, 1)
    ]
    assert seeds == ["dat table"] * 2


def test_an_empty_folder_is_refused():
    with pytest.raises(UserError, match=r"logger\.save_dir must be a folder"):
        RunWandbLogger("", "project", None, None, None, [], True, 10, 10)
