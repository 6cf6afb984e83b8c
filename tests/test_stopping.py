"""SIGTERM and Ctrl-C: one line, exit code 143 or 130, and nothing that is lost."""

import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import weakref

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ROOT
from tests.helpers.runs import SMALL, logged
from tests.helpers.waiting import finish, wait_until
from twotower import processes, signals
from twotower.run import train as run
from twotower.training.stopping import Stopping, _how_to_resume
from twotower.training.task import RetrievalTask

TRAIN = (
    *SMALL,
    "model.hidden_dims=[16]",
    "model.dropout=0.2",
    "trainer.max_epochs=2",
    "callbacks.early_stopping=null",
    "callbacks.diagnostics=null",
)


@pytest.fixture
def listening():
    signals.listen()
    yield
    signals.give_back()


def test_a_signal_raises_where_there_is_something_to_undo(listening):
    undone = []
    with pytest.raises(signals.Stopped) as stopped, signals.running():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # twice at once is once, as `timeout` sends it
            undone.append(True)
    assert undone and stopped.value.code == 143
    assert pickle.loads(pickle.dumps(stopped.value)).signum == signal.SIGTERM


def test_a_deferred_signal_waits_and_the_second_one_does_not(listening, monkeypatch):
    monkeypatch.setattr(signals, "SAME_S", 0)
    told = []
    with pytest.raises(signals.Stopped) as stopped, signals.running():
        signals.defer(told.append)
        os.kill(os.getpid(), signal.SIGTERM)
        assert told == [signal.SIGTERM] and signals.asked() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.code == 130


def test_a_signal_that_python_drops_comes_again(listening):
    """Exceptions in a weak reference's callback reach nobody, and imports are full of them."""

    class Thing:
        pass

    with pytest.raises(signals.Stopped), signals.running():
        thing = Thing()
        reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del thing
        assert reference() is None
        signal.pause()  # until it comes


def test_handlers_are_given_back():
    before = [signal.getsignal(signum) for signum in signals.WORDS], sys.unraisablehook
    with signals.running():
        assert signal.getsignal(signal.SIGTERM) != before[0][0]
    assert ([signal.getsignal(signum) for signum in signals.WORDS], sys.unraisablehook) == before


@pytest.mark.parametrize(
    ("signum", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")]
)
def test_the_start_ends_with_a_line(signum, word):
    """While modules are imported there is nothing to undo."""
    code = (
        "import os, time; from twotower import signals; signals.listen(); "
        f"os.kill(os.getpid(), {signum}); time.sleep(99)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (128 + signum, f"{word}\n", "")


def test_what_a_shell_ignores_stays_ignored():
    code = (
        "import os; from twotower import signals; signals.listen(); "
        "os.kill(os.getpid(), 2); print('here')"
    )
    command = f"trap '' INT; {sys.executable} -c \"{code}\""
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "here\n")


def kill_self(method, when):
    """``method``, with a SIGTERM to this process before its call number ``when``."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == when:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(*arguments, **options)

    return wrapped


def stop(script, monkeypatch, owner, name, when, *overrides):
    """A training whose call number ``when`` of ``owner.name`` is preceded by a SIGTERM."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill_self(getattr(owner, name), when))
        stopped = script("train", *overrides)
    line = "terminated; continue with: python src/train.py ckpt_path=run/checkpoints/last.ckpt"
    assert (stopped.returncode, stopped.stderr.strip().splitlines()[-1]) == (143, line)
    assert not (script.folder / "run" / "metrics.json").exists()


def assert_goes_on_to_the_same(script):
    resumed = script("train", "ckpt_path=run/checkpoints/last.ckpt")
    assert resumed.returncode == 0, resumed.stderr
    for file in ("last", "best"):
        first, second = script.weights("whole", file), script.weights("run", file)
        assert all(torch.equal(first[key], second[key]) for key in first), file
    assert script.metrics("whole")["test"] == script.metrics("run")["test"]


def test_a_stopped_training_goes_on_to_the_same_bits(script, monkeypatch):
    assert script("train", *TRAIN, "hydra.run.dir=whole").returncode == 0
    stop(
        script, monkeypatch, Stopping, "on_train_batch_start", 30, *TRAIN, "hydra.run.dir=run"
    )  # an epoch has about 20 steps
    again = "ckpt_path=run/checkpoints/last.ckpt"
    stop(script, monkeypatch, RetrievalTask, "validation_step", 1, again)
    stop(script, monkeypatch, RetrievalTask, "test_step", 1, again)
    assert_goes_on_to_the_same(script)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", ["+trainer.accumulate_grad_batches=4", "+trainer.val_check_interval=5"]
)
@pytest.mark.parametrize("when", [1, 29, 30])
def test_a_stop_waits_for_a_whole_step(script, monkeypatch, settings, when):
    assert script("train", *TRAIN, settings, "hydra.run.dir=whole").returncode == 0
    stop(
        script,
        monkeypatch,
        Stopping,
        "on_train_batch_start",
        when,
        *TRAIN,
        settings,
        "hydra.run.dir=run",
    )
    assert_goes_on_to_the_same(script)
    steps = [
        [row["step"] for row in logged(script, folder) if row.get("val/ndcg@10")]
        for folder in ("whole", "run")
    ]
    assert steps[0] == steps[1]  # no validation is missing


def test_other_commands_end_with_a_line(script, monkeypatch):
    assert script("train", *SMALL, "model=popularity", "hydra.run.dir=run").returncode == 0
    monkeypatch.setattr(RetrievalTask, "test_step", kill_self(RetrievalTask.test_step, 1))
    stopped = script("evaluate", "ckpt_path=run/checkpoints/best.ckpt", "output=again.json")
    assert (stopped.returncode, stopped.stderr) == (143, "terminated\n")
    assert not (script.folder / "again.json").exists()


def test_a_signal_ends_the_whole_sweep_and_the_repeat_goes_on(script, monkeypatch):
    settings = ("-m", *SMALL, "model=popularity", "callbacks.diagnostics=null", "seed=0,1")
    with monkeypatch.context() as patch:
        patch.setattr(run, "build", kill_self(run.build, 2))
        stopped = script("train", *settings)
    command = shlex.join(["python", "src/train.py", *settings])
    line = f"terminated; 1 of 2 runs done; continue with: {command}"
    assert (stopped.returncode, stopped.stderr.strip().splitlines()[-1]) == (143, line)
    finished = sorted(script.folder.glob("outputs/sweeps/*/*/metrics.json"))
    assert len(finished) == 1 and not list(script.folder.glob("outputs/sweeps/*/*/failed.json"))
    again = script("train", *settings)
    assert again.returncode == 0 and again.stdout.count(": already done\n") == 1


def test_the_way_to_go_on_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _how_to_resume(tmp_path / "last.ckpt") == "nothing was saved yet: start it again"
    folders = ["a", "a b", "a=b,(c)", "it's", 'say "$HOME"']
    given = []
    for folder in folders:
        last = tmp_path / folder / "last.ckpt"
        last.parent.mkdir()
        last.touch()
        given.append(_how_to_resume(last).removeprefix("continue with: python src/train.py "))
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    words = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{code}' {' '.join(given)}"],
        capture_output=True,
        text=True,
    )
    read = OverridesParser.create().parse_overrides(json.loads(words.stdout))
    assert [override.value() for override in read] == [f"{folder}/last.ckpt" for folder in folders]


def test_processes_end_and_are_seen_to_be_stopped():
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=-1,
        stdout=-1,
    )
    process.stdout.readline()
    assert processes.state(process.pid) == "running" and process.pid in processes.descendants(
        os.getpid()
    )
    process.send_signal(signal.SIGSTOP)
    while processes.state(process.pid) != "stopped":
        pass
    process.send_signal(signal.SIGCONT)
    processes.end([process.pid])
    assert processes.state(process.pid) == "gone"
    process.communicate()
    assert process.returncode == -signal.SIGTERM


@pytest.mark.skipif(
    sys.platform != "linux", reason="no other system ends a process with its parent"
)
@pytest.mark.parametrize("parent", ["os.getppid()", "0"], ids=["lives", "has ended"])
def test_a_process_ends_with_its_parent(parent):
    """However the parent ends, and whenever: before it is watched, too."""
    child = f"""
import os, time
from twotower import processes
processes.end_with({parent})
print(os.getpid(), flush=True)
time.sleep(99)
"""
    code = "import subprocess, sys; subprocess.call([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", code, child]
    process = subprocess.Popen(command, cwd=ROOT / "src", stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert bool(line) == (parent != "0")
    process.kill()
    assert process.stdout.read() == ""  # nobody holds it any more
    process.wait()
    while line and processes.state(int(line)) != "gone":
        pass


def ask_to_end(script, *settings, until):
    """Send SIGTERM to a new process once ``until`` holds.

    Its children get no signal from us, and must end with it.
    """
    process = script.popen("train", *settings)
    wait_until(until, process)
    children = processes.descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = finish(process)
    assert process.returncode == 143 and "Traceback" not in err, err
    assert children and {processes.state(child) for child in children} <= {"gone"}
    return out, err


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step(script):
    settings = (*TRAIN, "trainer.max_epochs=6", "trainer.devices=2", "data.batch_size=30")
    whole = script.popen("train", *settings, "hydra.run.dir=whole")
    out, err = finish(whole)
    assert whole.returncode == 0 and out.count("epoch 1/6") == 1, err
    last = script.folder / "run" / "checkpoints" / "last.ckpt"
    _, err = ask_to_end(script, *settings, "hydra.run.dir=run", until=last.exists)
    resume = "python src/train.py ckpt_path=run/checkpoints/last.ckpt trainer.devices=2"
    assert err.count(f"terminated; continue with: {resume}") == 1
    resumed = script.popen("train", "ckpt_path=run/checkpoints/last.ckpt", "trainer.devices=2")
    _, err = finish(resumed)
    assert resumed.returncode == 0, err
    first, second = script.weights("whole"), script.weights("run")
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ("trainer.devices=2",),
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local",),
    ],
)
def test_a_sweep_in_several_processes_ends_with_all_of_them(script, how):
    settings = ("-m", *TRAIN, "trainer.max_epochs=6", "seed=0,1", *how)
    sweeps = script.folder / "outputs" / "sweeps"
    _, err = ask_to_end(
        script, *settings, until=lambda: list(sweeps.glob("*/*/checkpoints/last.ckpt"))
    )
    command = shlex.join(["python", "src/train.py", *settings])
    line, _, done = err.strip().splitlines()[-1].partition(" of 2 runs done; continue with: ")
    assert line in ("terminated; 0", "terminated; 1") and done == command
    assert not list(sweeps.glob("*/*/failed.json"))
    again = script.popen("train", *settings)
    _, err = finish(again)
    assert again.returncode == 0 and len(list(sweeps.glob("*/*/metrics.json"))) == 2, err


def test_every_script_listens_before_it_imports():
    for path in (ROOT / "src").glob("*.py"):
        code = path.read_text()
        assert (
            "twotower import signals\n" in code
            and "import" not in code.split("signals.listen()")[0].split("signals\n")[1]
        ), path
