"""The scripts as their users run them: whole processes on small worlds."""

import json
import shutil
import signal

import polars as pl
import pytest
import torch

from tests.conftest import Script
from tests.helpers.runs import SMALL, logged
from tests.helpers.waiting import finish, wait_until
from twotower.errors import UserError
from twotower.run.build import construct
from twotower.run.cli import explain


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """The folder of a script that has trained one epoch, in ``run``."""
    script = Script(tmp_path_factory.mktemp("one_epoch"), pytest.MonkeyPatch())
    run = script("train", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    return script.folder


@pytest.fixture
def trained(script, one_epoch):
    """A script with a copy of that run."""
    shutil.copytree(one_epoch, script.folder, dirs_exist_ok=True)
    return script


def test_train_then_evaluate(script):
    run = script("train", *SMALL, "loss.lambda3=0", "seed=5", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert "dat on synthetic, seed 5" in run.stdout and "oracle" in run.stdout
    record = script.metrics("run")
    assert (
        record["status"] == "completed"
        and record["model"] == "dat"
        and record["data"] == "synthetic"
    )
    assert record["seed"] == 5 and "loss.lambda3=0" in record["overrides"] and record["epochs"] == 3
    counts = [category["train_interactions"] for category in record["categories"]]
    assert record["interactions_per_user"] == sum(counts) / 148  # of 150, two have too few
    for part in ("val", "test", "oracle"):
        names = {
            f"{name}@{k}" for name in ("hit_rate", "recall", "ndcg") for k in (10, 50, 100)
        } | {"mrr"}
        assert names <= record[part].keys()
    assert record["test"]["head/hit_rate@10"] >= 0 and record["train_examples_per_second"] > 0
    assert record["oracle"]["hit_rate@10"] > record["test"]["hit_rate@10"] - 0.05
    columns = logged(script, "run")[0].keys()
    assert {"train/task", "train/mimic_user", "train/mimic_item", "val/ndcg@10"} <= columns
    assert "train/alignment" not in columns
    assert (script.folder / "run" / ".hydra" / "config.yaml").exists()
    again = script("evaluate", "ckpt_path=run", "output=again.json")
    assert again.returncode == 0, again.stderr
    table = [line for line in run.stdout.splitlines() if line.startswith((" metric", " ndcg@10 "))]
    assert len(table) == 2 and "popularity" in table[0]
    assert set(table) <= set(again.stdout.splitlines())  # as after training
    assert (
        json.loads((script.folder / "again.json").read_text())["test"] == record["test"]
    )  # to the last bit
    val = script("evaluate", "ckpt_path=run/checkpoints/best.ckpt", "split=val", "output=val.json")
    assert val.returncode == 0, val.stderr
    assert "popularity" not in val.stdout  # which the run has for its test
    assert json.loads((script.folder / "val.json").read_text())["val"] == record["val"]


def test_alignment_is_logged_where_it_is_weighted(script):
    """In two steps, too, which end before the first validation."""
    run = script("train", *SMALL, "loss.lambda3=1", "trainer.max_steps=2", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert script.metrics("run")["test"]["hit_rate@10"] >= 0
    assert any(row["train/alignment"] for row in logged(script, "run"))


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(script):
    """A real SIGKILL within an epoch; dropout and negatives go on unchanged."""
    settings = (
        *SMALL,
        "model.hidden_dims=[16]",
        "model.dropout=0.2",
        "seed=1",
        "trainer.max_epochs=6",
        "callbacks.early_stopping=null",
    )
    whole = script("train", *settings, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = script.popen("train", *settings, "hydra.run.dir=killed")
    last = script.folder / "killed" / "checkpoints" / "last.ckpt"
    wait_until(lambda: last.exists() and step_of(last) > 25, killed)  # an epoch has about 20 steps
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert not (script.folder / "killed" / "metrics.json").exists()
    resumed = script(
        "train", f"ckpt_path={last}"
    )  # all settings come from the checkpoint, the folder too
    assert resumed.returncode == 0, resumed.stderr
    for name in ("last", "best"):
        first, second = script.weights("whole", name), script.weights("killed", name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    one, two = script.metrics("whole"), script.metrics("killed")
    assert (
        one["test"] == two["test"] and one["val"] == two["val"] and one["epochs"] == two["epochs"]
    )
    steps = [
        [row["step"] for row in logged(script, run) if row["train/loss"]]
        for run in ("whole", "killed")
    ]
    assert steps[0] == steps[1]  # no row lost, none twice
    assert (script.folder / "killed" / ".hydra" / "overrides.yaml").read_text().count("seed=1") == 1


def step_of(path):
    try:
        return torch.load(path, weights_only=True)["global_step"]
    except (OSError, RuntimeError, EOFError):
        return 0


def test_resuming_can_train_longer_but_not_otherwise(trained):
    script, record = trained, trained.folder / "run" / ".hydra"
    files = {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert {path.name for path in record.iterdir()} == files
    again = script("train", "ckpt_path=run", "model.dim=9")
    assert again.returncode == 1, again.stderr
    assert {path.name for path in record.iterdir()} == files  # none of what was refused
    longer = script("train", "ckpt_path=run", "trainer.max_epochs=2")
    assert longer.returncode == 0, longer.stderr
    (resumed,) = record.glob("resumed-*")
    assert "trainer.max_epochs=2" in (resumed / "overrides.yaml").read_text()
    assert script.metrics("run")["epochs"] == 2
    other = script("train", "ckpt_path=run", "loss.lambda3=0")
    assert (
        other.returncode == 1
        and "loss.lambda3=0: the checkpoint has 1.0; start a new run" in other.stderr
    )
    other = script("train", "ckpt_path=run/checkpoints/last.ckpt", "model=two_tower")
    assert other.returncode == 1 and "model=two_tower: the checkpoint has model=dat" in other.stderr
    other = script(
        "train",
        "ckpt_path=run/checkpoints/last.ckpt",
        "hydra.run.dir=elsewhere",
        "trainer.max_epochs=3",
    )
    assert (
        other.returncode == 1
        and "and not in" in other.stderr
        and "leave out hydra.run.dir" in other.stderr
    )
    elsewhere = script("evaluate", "ckpt_path=run", "paths.cache_dir=other")
    assert elsewhere.returncode == 0, elsewhere.stderr  # a cache is only a cache


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "twotower.data.prepare.store.shutil.rmtree",
        "twotower.files.Path",
        "subprocess.Popen",
    ],
)
def test_a_foreign_checkpoint_runs_no_code(trained, target):
    path = trained.folder / "run" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["twotower"]["config"]["model"] = {"_target_": target, "args": "x"}
    torch.save(checkpoint, path)
    run = trained("evaluate", f"ckpt_path={path}")
    assert run.returncode == 1 and target in run.stderr and len(run.stderr.splitlines()) == 1, (
        run.stderr
    )


def test_a_checkpoint_refuses_other_data(trained):
    path = trained.folder / "run" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["twotower"]["config"]["data"]["reader"]["seed"] = 1
    torch.save(checkpoint, path)
    for name in ("evaluate", "train"):
        run = trained(name, f"ckpt_path={path}")
        assert run.returncode == 1 and "trained on other data" in run.stderr, run.stderr


def test_popularity_needs_no_training(script):
    run = script("train", *SMALL, "model=popularity", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert 0 < script.metrics("run")["test"]["hit_rate@50"] < 1
    again = script("evaluate", "ckpt_path=run/checkpoints/best.ckpt", "output=again.json")
    assert again.returncode == 0, again.stderr
    table = [line for line in run.stdout.splitlines() if line.startswith((" metric", " ndcg@10 "))]
    assert len(table) == 2 and "popularity" not in table[0]  # it is the test column
    assert set(table) <= set(again.stdout.splitlines())  # as after training
    assert (
        json.loads((script.folder / "again.json").read_text())["test"]
        == script.metrics("run")["test"]
    )


@pytest.mark.slow
def test_two_processes(script):
    """Gloo on CPU: every user is ranked once, by equal weights everywhere."""
    process = script.popen(
        "train",
        *SMALL,
        "trainer.devices=2",
        "data.batch_size=32",
        "trainer.max_epochs=1",
        "hydra.run.dir=run",
    )
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out.count("dat on synthetic") == 1
    one = script(
        "evaluate", "ckpt_path=run/checkpoints/best.ckpt", "trainer.devices=1", "output=one.json"
    )
    assert one.returncode == 0, one.stderr
    both, alone = (
        script.metrics("run")["test"],
        json.loads((script.folder / "one.json").read_text())["test"],
    )
    assert both == pytest.approx(alone, rel=1e-12)
    ranks = pl.read_parquet(script.folder / "run" / "test_ranks.parquet")
    assert (
        not ranks.select("user", "item").is_duplicated().any()
    )  # each target once, whatever the number of processes
    assert (ranks["rank"] <= 10).mean() == pytest.approx(both["hit_rate@10"])  # one target a user


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("modle=dat",), "unknown setting modle (did you mean model?)"),
        (("loss.lamda3=0",), "unknown setting loss.lamda3 (did you mean loss.lambda3?)"),
        (("+loss.lamda3=0",), "unknown setting loss.lamda3 of DATLoss (did you mean lambda3?)"),
        (("loss.lambda3=-1",), "loss.lambda3 must be a finite number >= 0, got -1"),
        (("loss.lambda3=abc",), "loss.lambda3 must be a valid number, got 'abc'"),
        (("loss.lambda3=nan",), "loss.lambda3 must be a finite number, got nan"),
        (
            ("loss.task.temperature=1e308",),
            "loss.task.temperature is too large a number, got 1e+308",
        ),
        (
            ("callbacks.progress=abc",),
            "callbacks.progress must be a node with a _target_, got 'abc'",
        ),
        (
            ("callbacks.best.save_top_k=2",),
            "callbacks.best.save_top_k=2 would write several checkpoints to one file",
        ),
        (
            ("callbacks.best=null", "callbacks.last=null"),
            "one of them has to keep the weights to test",
        ),
        (
            ("+trainer.limit_train_batches=0",),
            "trainer.limit_train_batches must be a number of batches, or a share",
        ),
        (("loss.lambda3=${foo}",), "loss.lambda3: Interpolation key 'foo' not found"),
        (("seed=1,2",), "seed=1,2: several values are a sweep and need -m; a list is seed=[1,2]"),
        (
            ("data=table", "data.reader.interactions=my file (1).csv"),
            "need quotes within quotes: 'data.reader.interactions=\"my file (1).csv\"'",
        ),
        (
            ("hydra/launcher=typo",),
            "hydra/launcher=typo: no such option; choose from basic,",
        ),
        (("model=dta",), "model=dta: no such option (did you mean dat?); choose from"),
        (("+sed=1",), "unknown setting sed"),
        (("+k=5",), "unknown setting k"),
        (("seed=-1",), "seed must be greater than or equal to 0, got -1"),
        (("seed=abc",), "seed must be a valid integer, got 'abc'"),
        (("optimizer.lr=-1",), "optimizer.lr must be greater than or equal to 0, got -1"),
        (("optimizer.lr=abc",), "optimizer.lr must be a valid number, got 'abc'"),
        (("model=two_tower", "loss=dat"), "use it with model=dat"),
        (("data=movielens_1m", "data.reader.url=http://127.0.0.1:9/ml-1m.zip"), "cannot download"),
        (
            ("paths.output_dir=/dev/null/x",),
            "Not a directory (check the folders in paths.* and permissions)",
        ),
        (("ckpt_path=none.ckpt",), "ckpt_path=none.ckpt: there is no such file"),
        (("+trainer.devcies=2",), "devcies"),
        (("metric=null",), "a config group takes one of its options, not null"),
        (
            (*SMALL, "metric.ndcg.k=[5]"),
            "callbacks.best.monitor=val/ndcg@10 is not measured: choose val/",
        ),
        (
            (*SMALL, "metric.ndcg=null"),
            "callbacks.best.monitor=val/ndcg@10 is not measured: choose val/",
        ),
        ((*SMALL, "trainer.max_epochs=0"), "trainer.max_epochs must be"),
        (
            (*SMALL, "negatives.num=1000000000000000"),
            "no memory left: lower model.dim, data.batch_size, negatives.num or",
        ),
        ((*SMALL, "optimizer.lr=1e30"), "the loss is nan at step"),
        ((*SMALL, "trainer.precision=16-true"), "16-bit floats (trainer.precision=16-true)"),
        ((*SMALL, "dry=maybe"), "dry must be"),
        (
            (*SMALL, "optimizer.lr=1e30", "trainer.log_every_n_steps=50"),
            "item vectors are no longer finite numbers",
        ),
    ],
)
def test_user_errors_are_one_line(script, overrides, message):
    run = script("train", *overrides)
    assert run.returncode == 1
    assert message in run.stderr, run.stderr
    lines = [
        line  # retried downloads say so, and small data are warned of
        for line in run.stderr.strip().splitlines()
        if "; trying again in " not in line and not line.startswith("warning: an epoch has")
    ]
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    assert "Traceback" not in run.stderr


def test_a_logger_without_its_package_names_the_extra():
    with pytest.raises(UserError) as found:
        construct("logger", {"_target_": f"{__name__}.without_tensorboard"})
    assert str(explain(found.value)).endswith("pip install 'twotower[tensorboard]'")


def without_tensorboard():
    raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.")


def test_lightning_can_be_told_to_show_and_log_nothing(script):
    settings = [text for text in SMALL if "progress" not in text and "log_every" not in text]
    given = (
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=0",
        "logger=none",
        "callbacks.early_stopping=null",
    )
    run = script("train", *settings, "trainer.max_epochs=1", *given, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert script.metrics("run")["test"]


def test_the_checkpoint_that_was_best_is_tested_wherever_it_is(script):
    run = script(
        "train",
        *SMALL,
        "trainer.max_epochs=2",
        "callbacks.best.dirpath=elsewhere",
        "callbacks.best.filename=top",
        "hydra.run.dir=run",
    )
    assert run.returncode == 0, run.stderr
    saved = torch.load(script.folder / "elsewhere" / "top.ckpt", weights_only=True)
    assert saved["twotower"]["val"] == script.metrics("run")["val"]


@pytest.mark.parametrize(
    ("script_name", "message"),
    [
        ("evaluate", "ckpt_path"),
        ("export", "ckpt_path"),
        ("recommend", "ckpt_path"),
        ("report", "runs"),
    ],
)
def test_a_missing_setting_is_named(script, script_name, message):
    run = script(script_name)
    assert run.returncode == 1 and run.stderr.startswith(
        f"error: {message} is missing: python src/{script_name}.py {message}="
    ), run.stderr


def test_a_real_process_ends_with_exit_code_1(script):
    process = script.popen("train", "loss.lamda3=0")
    assert finish(process)[1] == "error: unknown setting loss.lamda3 (did you mean loss.lambda3?)\n"
    assert process.returncode == 1


def test_bad_raw_files_and_a_corrupt_cache_are_one_line(script):
    from tests.helpers.movielens import make_1m

    top = make_1m(script.folder / "data")
    settings = ("data=movielens_1m", "data.k_core=0", "debug=smoke")
    run = script("train", *settings)
    assert run.returncode == 1 and "ratings.dat has 8 rows, 1,000,209 expected" in run.stderr
    settings += ("data.reader.num_ratings=null",)
    assert script("train", *settings).returncode == 0
    array = next((script.folder / "cache").glob("movielens_1m-*/interactions.item.npy"))
    array.write_bytes(array.read_bytes()[:-1] + b"\x7f")
    run = script("train", *settings)
    assert run.returncode == 0 and "are damaged" in run.stderr and "prepared again" in run.stderr
    with (top / "ratings.dat").open("a") as file:
        file.write("1::2::3::4::5\n")
    run = script("train", *settings, "paths.cache_dir=fresh")
    assert run.returncode == 1 and "line 9 has 5 fields, expected 4" in run.stderr


@pytest.mark.slow
def test_parameters_that_nothing_trains_name_the_cure_for_several_processes(script):
    process = script.popen(
        "train", *SMALL, "trainer.devices=2", "model.augment_gradient=mimic", "loss.lambda1=0"
    )
    _, err = finish(process)
    assert process.returncode == 1
    assert "set trainer.strategy=ddp_find_unused_parameters_true" in err
    assert "Traceback" not in err  # of the second process neither
