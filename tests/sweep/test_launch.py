"""Sweeps as their users start them: skipped, resumed, failed, killed, in several processes."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.runs import SMALL
from tests.helpers.waiting import cpu_seconds, finish, wait_until
from twotower.run.run_folder import RunFolder

SWEEP = ("-m", *SMALL, "trainer.max_epochs=1")
TINY = (
    "data.reader.num_users=60",
    "data.reader.num_items=30",
    "data.reader.interactions_per_user=10",
    *SMALL[3:],
)
UNTRAINED = ("-m", *TINY, "model=popularity")  # a sweep of runs that take no time to train


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


def test_a_plan_measures_steps_where_no_such_run_has_finished(script):
    command = ("-m", *TINY, "seed=0,1", "dry=true")
    plan = script("train", *command)
    assert plan.returncode == 0 and "and the data are not prepared yet" in plan.stdout
    assert script("prepare", *TINY[:3]).returncode == 0
    assert "About" in (plan := script("train", *command).stdout)
    assert "from 20 measured steps of each variant (without early stopping)" in plan
    endless = script("train", *command, "trainer.max_epochs=-1").stdout
    assert "and trainer.max_epochs=-1 has no end" in endless
    untrained = script("train", *command, "model=popularity").stdout
    assert "and a model that is fitted in closed form has no steps" in untrained
    assert not (script.folder / "outputs").exists()


def test_runs_in_processes_of_their_own_leave_the_terminal_to_the_sweep(script, monkeypatch):
    command = ("-m", *TINY, "trainer.max_epochs=1", "model=mf")
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-1")
        apart = script("train", *command, "seed=0")
    assert apart.returncode == 0 and "epoch 1/1" not in apart.stdout
    here = script("train", *command, "seed=1")
    assert here.returncode == 0 and here.stdout.count("epoch 1/1") == 1


def test_a_failed_run_stops_nothing_and_a_second_start_does_the_rest(script):
    command = (*UNTRAINED, "data.k_core=1000,0")
    first = script("train", *command)
    assert first.returncode == 1
    assert "1 of 2 runs did not finish; the same command continues with them" in first.stderr
    assert "python src/report.py runs=outputs/sweeps/data.k_core-synthetic" in first.stdout
    begin = "1 failed (data.k_core=1000): "
    (line,) = [text for text in first.stdout.splitlines() if text.startswith(begin)]
    reason = line.removeprefix(begin)
    assert "2 of 2 runs ended\n" in first.stdout
    assert reason.startswith("no interaction is left of ")
    folder = named(script, "data.k_core-synthetic", "k_core-1000")
    failed = json.loads((folder / "failed.json").read_text())
    assert failed["error"] == reason and "data.k_core=1000" in failed["overrides"]
    assert time.strptime(failed["time"], "%Y-%m-%dT%H:%M:%S%z")
    plan = script("train", *command, "dry=true").stdout
    assert "2 runs, 1 to run, in outputs/sweeps/data.k_core-synthetic" in plan
    assert "from the finished runs among 1 in outputs" in plan
    assert "│ done" in plan and "│ failed" in plan
    # the config of the finished run changes: its result is kept aside, and it runs anew
    folder = named(script, "data.k_core-synthetic", "k_core-0")
    (folder / ".fingerprint").write_text("of a config before somebody edited its file")
    again = script("train", *command)
    assert again.returncode == 1 and again.stdout.count(": starts\n") == 2
    assert "held a run of another config, now in" in again.stdout
    assert (folder / "metrics.json").exists()
    earlier = script.folder / "outputs" / "sweeps" / "data.k_core-synthetic.earlier"
    assert len(list(earlier.glob("*/metrics.json"))) == 1


def test_whatever_is_varied_separates_its_run(script):
    """Settings of the data too; sweeps with other fixed settings share the folder and no run."""
    one = (*UNTRAINED, "data.history_length=2,4")
    for fixed in ((), ("data.batch_size=32",)):
        run = script("train", *one, *fixed)
        assert run.returncode == 0, run.stderr
        assert "2 runs in" in run.stdout and " 0 done" in run.stdout
    assert script("train", *one).stdout.count(": already done\n") == 2
    paths = script.folder.glob("outputs/sweeps/*/*/metrics.json")
    settings = [json.loads(path.read_text())["settings"] for path in paths]
    assert sorted(each["data.history_length"] for each in settings) == [2, 2, 4, 4]


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
    table = ("data=table", f"data.reader.interactions={clicks}", "data.k_core=0")
    command = ("-m", *TINY[3:], "model=popularity", *table, "seed=0")
    assert script("train", *command).returncode == 1
    (failed,) = script.folder.glob("outputs/sweeps/single-table/*/failed.json")
    assert str(clicks) in json.loads(failed.read_text())["error"]
    rows = [
        f"{user},{(7 * user + 3 * time) % 30},{time}" for user in range(40) for time in range(8)
    ]
    clicks.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
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
            "sweep=ablaton: no such option (did you mean ablation?)",
        ),
        (
            ("-m", "seed=0,1", "ckpt_path=a,b"),
            "ckpt_path cannot be varied: each run of a sweep continues from its own last.ckpt",
        ),
        (("-m", "variant=dat,dta"), "variant=dta: no such option"),
    ):
        run = script("train", *command)
        assert run.returncode == 1 and len(run.stderr.strip().splitlines()) == 1, run.stderr
        assert message in run.stderr
    assert not (script.folder / "outputs").exists()


def test_other_scripts_take_no_dry_run(script):
    run = script("prepare", "dry=true")
    assert (
        run.returncode == 1
        and "dry=true is for the train command alone" in run.stderr
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
    stopping = ("trainer.max_epochs=50", "callbacks.early_stopping.patience=1", "optimizer.lr=0.05")
    settings = ("-m", *TINY, *stopping, "seed=0")
    assert script("train", *settings).returncode == 0
    before = records(script, "single-synthetic")
    assert next(iter(before.values()))["epochs"] < 50
    (folder,) = folders(script, "single-synthetic").values()
    (folder / "metrics.json").unlink()  # as if it had been killed in its test
    run = script("train", *settings)
    assert ": continues" in run.stdout and records(script, "single-synthetic") == before


@pytest.mark.slow
def test_one_process_waits_for_another(script):
    assert script("train", *UNTRAINED, "seed=0").returncode == 0
    ((_, folder),) = folders(script, "single-synthetic").items()
    (folder / "metrics.json").rename(folder / "hidden.json")
    with RunFolder(folder).alone():
        other = script.popen("train", *UNTRAINED, "seed=0")
        line = next(line for line in other.stdout if "waiting" in line)
        assert "another process runs it" in line
        (folder / "hidden.json").rename(folder / "metrics.json")
    out, err = finish(other)
    assert other.returncode == 0 and f"{folder.name}: already done" in out, err


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
KILLS = [
    pytest.param(2, marks=pytest.mark.slow),
    pytest.param(20, marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["basic", "joblib"])
@pytest.mark.parametrize("kills", KILLS)
def test_killed_often_ends_as_undisturbed(script, kills, launcher):
    """SIGKILL and SIGTERM at any moment: no finished run is lost, none fails or is moved aside.

    No process of a killed sweep goes on, and the end is that of an undisturbed sweep.
    """
    variants = "two_tower,dat" if kills > 2 else "dat"
    settings = ("-m", *SMALL, "model.hidden_dims=[16]", "model.dropout=0.2", "trainer.max_epochs=4")
    settings = (*settings, "seed=0,1", f"variant={variants}")
    name = "seed+variant-synthetic" if kills > 2 else "seed-synthetic"
    assert script("train", *settings).returncode == 0
    expected = records(script, name)
    outputs = script.folder / "outputs"
    outputs.rename(script.folder / "whole")
    draw = random.Random(17)
    finished: dict[Path, bytes] = {}
    for kill in range(kills):
        process = script.popen("train", *settings, *launcher)
        if kill % 4 == 3:
            wait_for_work(process, 8 * draw.random())  # it starts
        else:  # it trains; all runs save some 20 checkpoints each
            wait_for_saves(process, outputs, draw.randint(1, 80 // kills))
            time.sleep(0.1 * draw.random())
        signum = signal.SIGTERM if kill % 2 else signal.SIGKILL
        process.send_signal(signum)
        _, err = finish(process)  # and all its workers, which hold its pipes
        assert process.returncode in (0, -signum, 143), err
        assert "Traceback" not in err and not list(outputs.glob("sweeps/*/*/failed.json")), err
        assert all(path.read_bytes() == content for path, content in finished.items())
        finished |= {path: path.read_bytes() for path in outputs.glob("sweeps/*/*/metrics.json")}
        print(f"kill {kill}: {signal.Signals(signum).name}, {len(finished)} runs are finished")
    end = script("train", *settings)
    assert end.returncode == 0, end.stderr
    assert records(script, name) == expected
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


# a job that fails while it prepares, then one that trains
HALF = ("-m", *TINY, "trainer.max_epochs=1", "data.k_core=1000,0")
IN_TWO_PROCESSES = "trainer.devices=2"


def outcome_of(outputs):
    """What the finished runs of a sweep have measured, by run."""
    paths = outputs.glob("sweeps/*/*/metrics.json")
    return {path.parent.name: json.loads(path.read_text())["test"] for path in paths}


def assert_half_failed(code, out, err):
    assert code == 1 and "1 of 2 runs did not finish" in err, err
    assert out.count("failed (") == 1 and out.count("no interaction is left of") == 1, out


@pytest.mark.slow
def test_a_job_in_several_processes_gives_what_the_run_by_itself_gives(script):
    run = script("train", *HALF, IN_TWO_PROCESSES)
    assert_half_failed(run.returncode, run.stdout, run.stderr)
    (found,) = outcome_of(script.folder / "outputs").values()
    single = (*HALF[1:-1], "data.k_core=0", IN_TWO_PROCESSES, "hydra.run.dir=alone")
    alone = script.popen("train", *single)
    _, err = finish(alone)
    assert alone.returncode == 0, err
    assert found == script.metrics("alone")["test"]


@pytest.mark.slow
def test_a_run_whose_process_is_killed_fails_alone(script):
    long = ("trainer.max_epochs=8", "callbacks.early_stopping=null")
    command = ("-m", *SMALL, *long, "trainer.devices=2,1")
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


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize(
    "devices",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param((IN_TWO_PROCESSES,), marks=pytest.mark.exhaustive),
    ],
    ids=["one", "two"],
)
def test_launchers_give_what_the_basic_one_gives(script, launcher, devices):
    basic = script("train", *HALF, *devices)
    assert_half_failed(basic.returncode, basic.stdout, basic.stderr)
    outputs = script.folder / "outputs"
    expected = outcome_of(outputs)
    outputs.rename(script.folder / "basic")
    process = script.popen("train", *HALF, *devices, f"hydra/launcher={launcher}")
    out, err = finish(process)
    assert_half_failed(process.returncode, out, err)
    assert outcome_of(outputs) == expected


def test_a_sweep_needs_no_best_checkpoint(script):
    settings = ("callbacks.best=null", "callbacks.early_stopping=null", "model=popularity")
    done = script("train", "-m", *TINY[3:], *settings, "seed=0")
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
