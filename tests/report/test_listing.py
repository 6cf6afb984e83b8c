"""``report.py list``: every run folder with what it says of its run, and how to go on."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.helpers.runs import SMALL
from tests.report.world import make_ranks, make_run
from twotower.report.entry import read, sweep_command
from twotower.run.run_folder import RunFolder

RANKS = make_ranks(0, 0, num_users=30)
HYDRA = """hydra:
  overrides:
    hydra: [hydra/launcher=joblib, hydra.mode=MULTIRUN]
    task: [model=mf, {}]
  runtime:
    choices: {{model: mf, data: toy}}
"""


def begin(folder, *overrides, last=True):
    """A run that was begun."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(HYDRA.format(", ".join(overrides)))
    (folder / "metrics.csv").write_text("epoch,val/ndcg@10\n0,\n0,0.125\n1,0.25\n2,0.2\n")
    if last:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
    return folder


def listed(script, *overrides, width=80):
    script.env["COLUMNS"] = str(width)
    run = script("report", "list", *overrides)
    assert run.returncode == 0, run.stderr
    return [line.rstrip() for line in run.stdout.splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_all_runs_newest_last_with_the_command_to_go_on(script, width):
    outputs = script.folder / "outputs"
    sweep = outputs / "sweeps" / "lambdas"
    for seed in (0, 1):
        overrides = ["trainer.max_epochs=9", "model=dat", "logger=none"]
        make_run(sweep / f"s{seed}", RANKS, seed, overrides, val={"ndcg@10": 0.5})
    begin(sweep / "s2", "trainer.max_epochs=9", "seed=2")
    RunFolder(sweep / "s2").write_failure("the loss is nan", [])
    (sweep / "multirun.yaml").write_text(HYDRA.format("'seed=0,1,2'"))
    begin(outputs / "today" / "a", "data.k_core=5", "paths.data_dir=/data", "trainer.devices=2")
    begin(outputs / "today" / "b", "'x=\"a b\"'", last=False)
    for place, name in enumerate(["sweeps/lambdas/s0", "sweeps/lambdas/s1", "sweeps/lambdas/s2"]):
        for file in (outputs / name).rglob("*"):
            os.utime(file, (1e9 + place, 1e9 + place))
    lines = listed(script, width=width)
    assert all(len(line) <= width for line in lines if "python src" not in line)
    runs = [line.strip() for line in lines if line.startswith("  outputs/")]
    assert runs[:3] == [f"outputs/sweeps/lambdas/s{seed}" for seed in (0, 1, 2)]
    assert sorted(runs[3:]) == ["outputs/today/a", "outputs/today/b"]
    text = "\n".join(lines)
    assert "\noutputs/sweeps/lambdas\nall with trainer.max_epochs=9\n" in text
    found = next(line.split() for line in lines if line.startswith("dat on toy  seed=1"))
    value = json.loads((sweep / "s1" / "metrics.json").read_text())["test"]["ndcg@10"]
    assert found[4:7] == ["finished", ".5000", f"{value:.4f}"[1:]]
    assert "  the loss is nan\n  outputs/sweeps/lambdas/s2\ngo on: python src/train.py -m " in text
    assert "go on: python src/train.py -m model=mf seed=0,1,2 hydra/launcher=joblib\n" in text
    last = "outputs/today/a/checkpoints/last.ckpt paths.data_dir=/data trainer.devices=2"
    assert f"  go on: python src/train.py ckpt_path={last}\n" in text
    assert "  go on: python src/train.py model=mf 'x=\"a b\"'\n" in text
    assert text.count("interrupted  .2500") == 2  # the best so far
    assert "5 runs: 2 finished, 1 failed, 2 interrupted" in text


def test_a_sweep_goes_on_in_its_folder_with_its_configs_and_launcher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [
        "hydra.mode=MULTIRUN",
        "hydra.sweep.dir=elsewhere/sweeps/${now:%S}",
        "hydra.searchpath=[file://own conf]",
        "hydra/launcher=ray",
        "+hydra.launcher.ray.init.num_cpus=3",
        "hydra.verbose=launcher",
    ]
    hydra = {"overrides": {"hydra": given, "task": ["sweep=seeds"]}}
    folder = tmp_path / "out" / "sweeps" / "two words"
    folder.mkdir(parents=True)
    (folder / "multirun.yaml").write_text(json.dumps({"hydra": hydra}))
    assert sweep_command(folder).partition(" -m ")[2] == (
        "sweep=seeds 'hydra.searchpath=[file://own conf]' hydra/launcher=ray "
        "+hydra.launcher.ray.init.num_cpus=3 'hydra.sweep.dir=\"out/sweeps/two words\"'"
    )


def test_a_search_goes_on_until_all_trials_have_ended(script):
    """Failed trials are not repeated, so a command would do nothing more for them."""
    search = script.folder / "outputs" / "sweeps" / "search-toy"
    for number in (0, 1):
        begin(search / f"mf-00{number}")
        RunFolder(search / f"mf-00{number}").write_failure("the loss is nan", [])
    (search / "multirun.yaml").write_text(HYDRA.format("sweep=search"))
    about = "{{budget: {}, overrides: {{mf: [], dat: []}}}}"
    rows = ["mf,0,failed", "mf,1,{}", "dat,0,complete", "dat,1,pruned"]
    for budget, state, is_over in [
        (2, "failed", True),
        (2, "running", False),
        (3, "failed", False),
    ]:
        (search / "search.yaml").write_text(about.format(budget))
        trials = "\n".join(["variant,number,state", *rows]).format(state)
        (search / "trials.csv").write_text(f"{trials}\n")
        text = "\n".join(listed(script))
        assert text.count("go on: ") == (0 if is_over else 1), text
    (search / "trials.csv").write_text("variant,number,state\nmf,0,failed\nmf,1,failed\n")
    (search / "search.yaml").write_text(about.format(2))
    assert "go on: " in "\n".join(listed(script))  # dat has not begun
    (search / "search.yaml").write_text("[")
    assert "go on: " in "\n".join(listed(script))


def test_what_cannot_be_read_is_named(script, monkeypatch):
    outputs = script.folder / "outputs"
    make_run(outputs / "whole", RANKS)
    (outputs / "damaged").mkdir()
    (outputs / "damaged" / "metrics.json").write_text('{"model": ')
    for name in ("pipe", "yaml", "list"):
        begin(outputs / name)
    os.mkfifo(outputs / "pipe" / "metrics.json")
    (outputs / "yaml" / ".hydra" / "hydra.yaml").write_text("hydra: [")
    (outputs / "list" / ".hydra" / "hydra.yaml").write_text("hydra: {overrides: 3, runtime: [1]}")
    (outputs / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    text = "\n".join(listed(script))
    assert "  metrics.json cannot be used: Expecting value" in text
    assert "  metrics.json cannot be used: it is not an ordinary file\n  outputs/pipe" in text
    assert "outputs/closed cannot be read: Permission denied" in text
    assert "5 runs: " in text and "2 damaged" in text and "2 interrupted" in text


def test_a_pruned_trial_is_a_state_of_its_own(tmp_path):
    folder = make_run(tmp_path / "dat-003", RANKS, status="pruned", val={"ndcg@10": 0.2}, test={})
    entry = read(RunFolder(folder), "ndcg@10")
    assert (entry.status, entry.val, entry.test, entry.is_left) == ("pruned", 0.2, None, False)


def test_no_run_is_one_line(script):
    run = script("report", "list")
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
    assert "there is no run folder" in run.stderr


def test_a_run_is_running_while_its_process_lives(tmp_path):
    folder = RunFolder(begin(tmp_path / "run"))
    status = lambda: read(folder, "ndcg@10").status  # noqa: E731
    code = "import sys; from pathlib import Path; from twotower.run.run_folder import RunFolder; "
    code += f"RunFolder(Path({str(folder.path)!r})).sign(); print(flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, env=environment)
    process.stdout.readline()
    assert status() == "running"
    process.kill()
    process.wait()
    assert status() == "interrupted"
    sign = {"pid": os.getpid(), "started": "0", "host": os.uname().nodename}
    for change, expected in [
        ({}, "interrupted"),  # another process with the same id
        ({"host": "elsewhere"}, "running"),
        ({"pid": 10**30}, "interrupted"),
        ({"pid": "1"}, "interrupted"),
    ]:
        folder.process.write_text(json.dumps({**sign, **change}))
        assert status() == expected, change


def test_a_single_run_signs_its_folder_and_records_its_failure(script, monkeypatch):
    from twotower.training.task import RetrievalTask

    seen = []

    def fail(task, batch, batch_idx=0):
        seen.append(read(RunFolder(script.folder / "run"), "ndcg@10").status)
        raise RuntimeError("the disk\nis gone")

    with monkeypatch.context() as patch:
        patch.setattr(RetrievalTask, "training_step", fail)
        with pytest.raises(RuntimeError):
            script("train", *SMALL, "hydra.run.dir=run")
    entry = read(RunFolder(script.folder / "run"), "ndcg@10")
    assert seen == ["running"]
    assert (entry.status, entry.note) == ("failed", "RuntimeError: the disk")
    assert time.time() - entry.written < 600
    run = script("train", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    folder = RunFolder(script.folder / "run")
    assert read(folder, "ndcg@10").status == "finished"
    assert not folder.failure.exists() and not folder.process.exists()
