"""Locks between processes: one at a time, and the others know whom they wait for."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import ROOT
from twotower import locks, processes

HOLD = """
import os, subprocess, sys
from pathlib import Path
from twotower.locks import alone
with alone(Path(sys.argv[1]), "", print) as lock:
    if len(sys.argv) > 2:  # a child that inherits the lock and outlives us
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleep, pass_fds=[lock], stdout=-3)
        print(child.pid, flush=True)
        os._exit(0)  # as if it were killed
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "a.lock"), *arguments]
        process = subprocess.Popen(command, cwd=ROOT / "src", stdin=-1, stdout=-1, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def take(path, said):
    """Wait for the lock in a thread: it ends once the lock was ours."""

    def run():
        with locks.alone(path, "waiting", said.append):
            pass

    thread = threading.Thread(target=run)
    thread.start()
    while not said and thread.is_alive():
        pass
    return thread


def test_a_waiter_names_the_holder_and_a_dead_one_holds_nothing(start, tmp_path):
    path = tmp_path / "a.lock"
    process, _ = start()
    said = []
    thread = take(path, said)
    assert (
        said[0].startswith(f"waiting; process {process.pid} on ")
        and f" holds {path}; kill {process.pid} ends it" in said[0]
    )
    assert "(since 20" in said[0]
    process.kill()
    thread.join()
    assert len(said) == 1
    assert (
        take(path, none := []).join() is None and none == []
    )  # the file is there, and nobody holds it


def test_a_stopped_holder_is_told_again_and_again(start, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "REMIND_S", 0.0)
    process, _ = start()
    process.send_signal(signal.SIGSTOP)
    while processes.state(process.pid) != "stopped":
        pass
    said = []
    thread = take(tmp_path / "a.lock", said)
    while len(said) < 2:
        pass
    pid = process.pid
    assert said[1].endswith(
        f"it is stopped: kill -CONT {pid} lets it go on, kill -KILL {pid} ends it"
    )
    process.kill()
    thread.join()


def test_a_child_that_outlives_its_parent_still_holds_the_lock(start, tmp_path):
    process, child = start("child")
    process.wait()
    try:
        with locks.if_free(tmp_path / "a.lock") as is_free:
            assert not is_free
        assert "has ended, but a process that it started" in locks.holder(tmp_path / "a.lock")
    finally:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', "\x00"])
def test_a_file_that_says_nothing_is_no_obstacle(tmp_path, text):
    path = tmp_path / "a.lock"
    path.write_text(text)
    assert locks.holder(path) == f"an unknown process holds {path}"
    with locks.alone(path, "", pytest.fail):
        assert f"process {os.getpid()} on " in locks.holder(path)


def test_a_holder_elsewhere_is_named_without_advice(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text('{"pid": 1, "host": "node\\u001b[7", "since": "then", "command": "python a"}')
    assert locks.holder(path) == f"process 1 on node[7 (since then: python a) holds {path}"


def test_a_link_in_the_place_of_a_lock_is_not_written_through(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (tmp_path / "a.lock").symlink_to(victim)
    with (
        pytest.raises(OSError, match="a link in the place of a lock"),
        locks.alone(tmp_path / "a.lock", "", print),
    ):
        pass
    assert victim.read_text() == "precious"


def test_a_lock_is_taken_if_it_is_free(tmp_path):
    path = tmp_path / "locks" / "a.lock"
    with locks.if_free(path) as is_free, locks.if_free(path) as is_free_too:
        assert is_free and not is_free_too and f"process {os.getpid()} " in locks.holder(path)
    with locks.if_free(path) as is_free:
        assert is_free
