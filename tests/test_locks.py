"""Locks between processes; a waiting process names the holder."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

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


def take(path, messages):
    """Start a thread that takes the lock and ends; return once it waits or has ended."""

    def run():
        with locks.alone(path, "waiting", messages.append):
            pass

    thread = threading.Thread(target=run)
    thread.start()
    while not messages and thread.is_alive():
        pass
    return thread


def test_a_waiting_process_names_the_holder_until_it_ends(start, tmp_path):
    path = tmp_path / "a.lock"
    process, _ = start()
    messages = []
    thread = take(path, messages)
    assert messages[0].startswith(f"waiting; process {process.pid} on ")
    assert f" holds {path}; kill {process.pid} ends it" in messages[0]
    assert "(since 20" in messages[0]
    process.kill()
    thread.join()
    assert len(messages) == 1
    take(path, messages).join()
    assert len(messages) == 1  # the file is there, but no process holds it


def test_a_stopped_holder_is_reported_repeatedly(start, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "REMIND_S", 0.0)
    process, _ = start()
    process.send_signal(signal.SIGSTOP)
    while processes.state(process.pid) != "stopped":
        pass
    messages = []
    thread = take(tmp_path / "a.lock", messages)
    while len(messages) < 2:
        pass
    pid = process.pid
    cure = f"it is stopped: kill -CONT {pid} lets it go on, kill -KILL {pid} ends it"
    assert messages[1].endswith(cure)
    process.kill()
    thread.join()


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="only Linux names the holder")
def test_a_child_that_outlives_its_parent_is_named(start, tmp_path):
    process, child = start("child")
    process.wait()
    try:
        assert f"process {child} on " in locks.holder(tmp_path / "a.lock")
    finally:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', "\x00"])
def test_a_damaged_lock_file_can_be_taken(tmp_path, text):
    path = tmp_path / "a.lock"
    path.write_text(text)
    assert locks.holder(path) == f"an unknown process holds {path}"
    with locks.alone(path, "", pytest.fail):
        assert f"process {os.getpid()} on " in locks.holder(path)


def test_a_holder_on_another_machine_is_named_without_a_cure(tmp_path):
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
