"""Sweeps as their users start them: skipped, resumed, failed, killed, and with several processes."""

import csv
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Script
from tests.helpers.runs import SMALL
from tests.helpers.waiting import cpu_seconds, finish, wait_until
from twotower.run.run_folder import RunFolder

SWEEP = ("-m", *SMALL, "trainer.max_epochs=1")


def folders(script, name):
    return {
        path.parent.name: path.parent
        for path in (script.folder / "outputs" / "sweeps" / name).glob("*/.hydra")
    }


def records(script, name):
    """What a report would read, by run."""
    found = {}
    for run, folder in folders(script, name).items():
        record = json.loads((folder / "metrics.json").read_text())
        found[run] = {
            key: record[key]
            for key in ("status", "model", "data", "seed", "overrides", "epochs", "val", "test")
        }
    return found


def named(script, name, *parts):
    (folder,) = [
        folder
        for run, folder in folders(script, name).items()
        if all(part in run for part in parts)
    ]
    return folder


def test_a_failed_run_stops_nothing_and_a_second_start_does_the_rest(script):
    command = (*SWEEP, "data.k_core=1000,0")
    first = script("train", *command)
    assert (
        first.returncode == 1
        and "1 of 2 runs did not finish; the same command goes on with them" in first.stderr
    )
    (line,) = [
        text
        for text in first.stdout.splitlines()
        if text.startswith("1 failed (data.k_core=1000): ")
    ]
    reason = line.split(": ", 1)[1]
    assert reason.startswith("no interaction is left of ")
    assert "python src/report.py runs=outputs/sweeps/data.k_core-synthetic" in first.stdout
    failed = json.loads(
        (named(script, "data.k_core-synthetic", "k_core-1000") / "failed.json").read_text()
    )
    assert failed["error"] == reason and "data.k_core=1000" in failed["overrides"]
    assert time.strptime(failed["time"], "%Y-%m-%dT%H:%M:%S%z")
    plan = script("train", *command, "dry=true")
    assert (
        "2 runs, 1 to run" in plan.stdout
        and "About" in plan.stdout
        and "│ done" in plan.stdout
        and "│ failed" in plan.stdout
    )
    again = script("train", *command)
    assert (
        again.stdout.count(": already done\n") == again.stdout.count(": starts\n") == 1
        and again.returncode == 1
    )
    # the config of the finished run changes: its result is neither taken for the new one's, nor gone on with, nor lost
    folder = named(script, "data.k_core-synthetic", "k_core-0")
    (folder / ".fingerprint").write_text("of a config before somebody edited its file")
    again = script("train", *command)
    assert (
        again.stdout.count(": starts\n") == 2
        and "held a run of another config, now in" in again.stdout
    )
    assert (folder / "metrics.json").exists()
    assert (
        len(list(script.folder.glob("outputs/sweeps/data.k_core-synthetic.earlier/*/metrics.json")))
        == 1
    )


def test_whatever_is_varied_separates_its_run(script):
    """Settings of the data too; and sweeps of other fixed settings leave each other's finished runs in peace."""
    one = (
        "-m",
        *SMALL,
        "model=popularity",
        "callbacks.diagnostics=null",
        "data.history_length=2,4",
    )
    for fixed in ((), ("data.batch_size=32",)):
        run = script("train", *one, *fixed)
        assert run.returncode == 0 and "2 runs in" in run.stdout and " 0 done" in run.stdout, (
            run.stderr
        )
    for fixed in ((), ("data.batch_size=32",)):
        assert script("train", *one, *fixed).stdout.count(": already done\n") == 2
    records = [
        json.loads(path.read_text())
        for path in script.folder.glob("outputs/sweeps/*/*/metrics.json")
    ]
    assert sorted(record["settings"]["data.history_length"] for record in records) == [2, 2, 4, 4]


@pytest.mark.parametrize(
    "varied",
    [
        "data/split=leave_last_out,random_ratio",
        "data.group_shares=[0.5,0.8],[0.2,0.8]",
        "model/history=gru,mean",
        "loss/task=bce,bpr",
        "data.reader.interactions='a b','a-b'",
        "+trainer.gradient_clip_val=1,2",
        "trainer.accelerator=cpu,auto",
        "callbacks.speed.compile=true,false",
        "logger=none,csv",
    ],
)
def test_each_value_has_a_run_of_its_own(script, varied):
    data = ("data=table", "data.reader.interactions=x.csv") if "interactions" in varied else ()
    plan = script("train", "-m", *data, varied, "dry=true")
    assert plan.returncode == 0 and "2 runs, 2 to run" in plan.stdout, plan.stderr


def test_a_failure_is_forgotten_when_the_run_completes(script):
    clicks = script.folder / "clicks.csv"
    small = [text for text in SWEEP if "data.reader" not in text]
    command = (
        *small,
        "data=table",
        f"data.reader.interactions={clicks}",
        "data.k_core=0",
        "loss.lambda3=0",
        "seed=0",
    )
    assert script("train", *command).returncode == 1
    (failed,) = script.folder.glob("outputs/sweeps/single-table/*/failed.json")
    assert str(clicks) in json.loads(failed.read_text())["error"]
    with clicks.open("w", newline="") as file:
        rows = [(user, (7 * user + 3 * time) % 30, time) for user in range(40) for time in range(8)]
        csv.writer(file).writerows([("user_id", "item_id", "timestamp"), *rows])
    assert script("train", *command).returncode == 0
    assert not failed.exists() and failed.with_name("metrics.json").exists()


@pytest.mark.parametrize("how", [("-m", "seed=0,1"), ("sweep=seeds",), ()])
def test_a_dry_run_writes_nothing(script, how):
    run = script("train", *how, "dry=true")
    assert run.returncode == 0, run.stderr
    number = {("-m", "seed=0,1"): 2, ("sweep=seeds",): 5, (): 1}[how]
    assert (
        f"{number} run" in run.stdout
        and f"{number} to run" in run.stdout
        and "no run like these has finished" in run.stdout
    )
    assert not list(script.folder.iterdir())


def test_a_mistake_stops_a_sweep_before_it_starts(script):
    for command, message in (
        (
            ("-m", "sweep=ablation", "loss.lamda3=1"),
            "unknown setting loss.lamda3 (did you mean loss.lambda3?)",
        ),
        (
            ("-m", "sweep=ablation", "loss.lambda3=2", "seed=0", "variant=dat,dat_amm"),
            "variant=dat and variant=dat_amm are the same run",
        ),
        (
            ("-m", "sweep=ablaton"),
            "sweep=ablaton: there is no such option (did you mean ablation?)",
        ),
        (
            ("-m", "seed=0,1", "ckpt_path=a,b"),
            "ckpt_path cannot be varied: each run of a sweep goes on from its own last.ckpt",
        ),
        (("-m", "variant=dat,dta"), "variant=dta: there is no such option"),
    ):
        run = script("train", *command)
        assert run.returncode == 1 and len(run.stderr.strip().splitlines()) == 1, run.stderr
        assert message in run.stderr
    assert not (script.folder / "outputs").exists()


def test_other_scripts_take_no_dry_run(script):
    run = script("prepare", "dry=true")
    assert (
        run.returncode == 1
        and "dry=true is for src/train.py alone" in run.stderr
        and "Traceback" not in run.stderr
    )


def test_the_command_line_narrows_a_sweep(script):
    plan = script(
        "train",
        "-m",
        "sweep=lambdas",
        "loss.lambda2=0.5",
        "loss.lambda1=0",
        "seed=0",
        "experiment=dat_paper",
        "data=movielens_1m",
        "dry=true",
    )
    assert "3 runs" in plan.stdout and "lambdas-movielens_1m" in plan.stdout, plan.stderr
    plan = script(
        "train",
        "-m",
        "sweep=ablation",
        "seed=0",
        "variant=two_tower,dat",
        "experiment=two_tower_movielens_1m",
        "dry=true",
    )
    assert "2 runs" in plan.stdout and "ablation-movielens_1m" in plan.stdout, plan.stderr


def test_killed_after_early_stopping_trains_no_more(script):
    settings = (
        "-m",
        *SMALL,
        "trainer.max_epochs=50",
        "callbacks.early_stopping.patience=1",
        "optimizer.lr=0.05",
        "seed=0",
    )
    assert script("train", *settings).returncode == 0
    before = records(script, "single-synthetic")
    assert next(iter(before.values()))["epochs"] < 50
    (folder,) = folders(script, "single-synthetic").values()
    (folder / "metrics.json").unlink()  # as if it had been killed in its test
    run = script("train", *settings)
    assert ": goes on" in run.stdout and records(script, "single-synthetic") == before


@pytest.mark.slow
def test_one_process_waits_for_another(script, tmp_path):
    assert script("train", *SWEEP, "seed=0,1").returncode == 0
    folder = named(script, "seed-synthetic", "seed-0")
    (folder / "metrics.json").rename(folder / "hidden.json")
    with RunFolder(folder).alone():
        other = script.popen("train", *SWEEP, "seed=0,1")
        line = next(line for line in other.stdout if "waiting" in line)
        assert "another process runs it" in line
        (folder / "hidden.json").rename(folder / "metrics.json")
    out, err = finish(other)
    assert other.returncode == 0 and f"{folder.name}: already done" in out, err


KILLS = [
    pytest.param(4, marks=pytest.mark.slow),
    pytest.param(20, marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
@pytest.mark.parametrize("kills", KILLS)
def test_killed_often_ends_as_undisturbed(script, kills, launcher):
    """SIGKILL and SIGTERM at any moment: no finished run is lost, none fails or is moved aside.

    Nothing that was killed goes on, and the end is that of an undisturbed sweep.
    """
    settings = ("-m", *SMALL, "model.dropout=0.2", "trainer.max_epochs=4")
    settings = (*settings, "seed=0,1,2", "variant=two_tower,dat")
    assert script("train", *settings).returncode == 0
    expected = records(script, "seed+variant-synthetic")
    outputs = script.folder / "outputs"
    outputs.rename(script.folder / "whole")
    draw = random.Random(17)
    finished: dict[Path, bytes] = {}
    for kill in range(kills):
        process = script.popen("train", *settings, *launcher)
        if kill % 4 == 3:
            wait_for_work(process, 8 * draw.random())  # it starts
        else:  # it trains; about 100 saves make the whole
            wait_for_saves(process, outputs, draw.randint(1, 200 // kills))
            time.sleep(0.1 * draw.random())
        signum = signal.SIGTERM if kill % 2 else signal.SIGKILL
        process.send_signal(signum)
        _, err = finish(process)  # and all its workers, which hold its pipes
        assert process.returncode in (0, -signum, 143), err
        assert "Traceback" not in err and not list(outputs.glob("sweeps/*/*/failed.json")), err
        assert all(path.read_bytes() == content for path, content in finished.items())
        finished |= {path: path.read_bytes() for path in outputs.glob("sweeps/*/*/metrics.json")}
        print(f"kill {kill}: {signal.Signals(signum).name}, {len(finished)} runs are finished")
    end = script.popen("train", *settings, *launcher)
    _, err = finish(end)
    assert end.returncode == 0, err
    assert records(script, "seed+variant-synthetic") == expected
    assert not list(outputs.glob("sweeps/*.earlier"))


def wait_for_work(process, seconds):
    """Until the process has ended or has computed for some seconds."""
    while process.poll() is None and cpu_seconds(process.pid) < seconds:
        time.sleep(0.01)


def wait_for_saves(process, outputs, number):
    """Until the process has ended or its runs have saved some checkpoints."""
    before, seen = saves(outputs), set()
    while process.poll() is None and len(seen) < number:
        seen |= saves(outputs) - before
        time.sleep(0.01)


def saves(outputs):
    """The checkpoints that there are; each save makes a new file."""
    paths = outputs.glob("sweeps/*/*/checkpoints/last.ckpt")
    return {(path, path.stat().st_mtime_ns) for path in paths}


# jobs of one and of two processes, each kind after one that fails while it prepares
MIXED = (*SWEEP, "trainer.devices=2,1", "data.k_core=1000,0")


def outcome_of(outputs):
    """What the finished runs of a sweep have measured, by run."""
    paths = outputs.glob("sweeps/*/*/metrics.json")
    return {path.parent.name: json.loads(path.read_text())["test"] for path in paths}


def assert_half_failed(code, out, err):
    assert code == 1 and "2 of 4 runs did not finish" in err, err
    assert out.count("failed (") == 2 and out.count("no interaction is left of") == 2, out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The tests of the sweep ``MIXED`` by Hydra's own launcher, by run."""
    with pytest.MonkeyPatch.context() as patch:
        script = Script(tmp_path_factory.mktemp("mixed"), patch)
        run = script("train", *MIXED)
        assert_half_failed(run.returncode, run.stdout, run.stderr)
        return outcome_of(script.folder / "outputs")


@pytest.mark.slow
def test_several_processes_each_do_their_job_alone(script, mixed):
    """Each result is that of the run by itself."""
    assert len(mixed) == 2
    for devices in (1, 2):
        alone = script.popen(
            "train",
            *SMALL,
            "trainer.max_epochs=1",
            f"trainer.devices={devices}",
            "data.k_core=0",
            f"hydra.run.dir=alone{devices}",
        )
        finish(alone)
        assert alone.returncode == 0
        (found,) = (test for run, test in mixed.items() if f"devices-{devices}" in run)
        assert found == script.metrics(f"alone{devices}")["test"]


@pytest.mark.slow
def test_a_run_whose_process_is_killed_fails_alone(script):
    command = (
        "-m",
        *SMALL,
        "trainer.max_epochs=8",
        "callbacks.early_stopping=null",
        "trainer.devices=2,1",
    )
    process = script.popen("train", *command)
    next(line for line in process.stdout if "starts" in line)
    last = script.folder / "outputs" / "sweeps" / "trainer.devices-synthetic"
    wait_until(lambda: list(last.glob("*/checkpoints/last.ckpt")), process)
    victim = next(pid for pid in children(process.pid) for pid in children(pid))  # rank 1
    os.kill(victim, signal.SIGKILL)
    out, err = finish(process)
    assert process.returncode == 1 and "1 of 2 runs did not finish" in err, err
    assert "1 failed (trainer.devices=2)" in out and "done" in out


def children(pid):
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_give_what_the_basic_one_gives(script, mixed, launcher):
    process = script.popen("train", *MIXED, f"hydra/launcher={launcher}")
    out, err = finish(process)
    assert_half_failed(process.returncode, out, err)
    assert outcome_of(script.folder / "outputs") == mixed
