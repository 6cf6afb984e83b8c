"""The script for a session on a GPU runs its parts, each with settings that exist."""

import os
import subprocess

import pytest
from hydra import compose, initialize_config_dir

from tests.conftest import ROOT

PYTHON = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in *{failing}*) exit 3;; esac
"""


@pytest.fixture
def session(tmp_path):
    def run(failing="none", **environment):
        """Run the script with a Python that only notes its arguments; returns these."""
        calls, python = tmp_path / "calls", tmp_path / "python"
        calls.write_text("")
        python.write_text(PYTHON.format(folder=tmp_path, failing=failing))
        python.chmod(0o755)
        own = {"PYTHON": str(python), "TWOTOWER_DATA_DIR": str(tmp_path), **environment}
        command = ["bash", ROOT / "benchmarks" / "gpu_session.sh", tmp_path / "results"]
        subprocess.run(command, env={**os.environ, **own}, check=True, capture_output=True)
        return calls.read_text().splitlines()

    return run


@pytest.mark.parametrize("small", ["", "1"])
def test_the_settings_of_all_parts_exist(session, small):
    calls = session(GPU_SESSION_SMALL=small)
    assert len(calls) == 10
    for call in calls:
        program, *settings = call.split()
        if program not in ("src/benchmark.py", "src/train.py"):
            continue
        overrides = [setting for setting in settings if setting != "-m"]
        name = program.removeprefix("src/").removesuffix(".py")
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose(name, overrides)
        assert config.data.reader._target_.endswith("Synthetic")


def test_it_goes_on_with_the_parts_that_have_not_succeeded(session, tmp_path):
    assert len(session(failing="benchmark=step")) == 10
    summary = (tmp_path / "results" / "summary.txt").read_text()
    assert summary.count("exit status 0 after") == 9 and "step: exit status 3 after" in summary
    (again,) = session()
    assert "benchmark=step" in again
    assert session() == []


def test_parts_are_chosen_and_time_is_limited(session, tmp_path):
    (call,) = session(PARTS="tests")
    assert call.startswith("-m pytest -m gpu")
    assert session(GPU_SESSION_SECONDS="5") == []
    assert "sweep: no time left" in (tmp_path / "results" / "summary.txt").read_text()
