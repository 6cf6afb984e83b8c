"""Runs the commands of the README section on your own data."""

import re
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_your_own_data(script):
    section = (ROOT / "README.md").read_text().split("## Your own data")[1].split("\n## ")[0]
    make, prepare, train = re.search(r"```sh\n(.*?)```", section, re.S)[1].strip().splitlines()
    subprocess.run(make, shell=True, check=True, cwd=script.folder)
    assert len((script.folder / "clicks.csv").read_text().splitlines()) == 1 + 300 * 20
    for line in (prepare, train):
        python, path, *overrides = line.split()
        assert python == "python" and (ROOT / path).exists()
        run = script(path.removeprefix("src/").removesuffix(".py"), *overrides)
        assert run.returncode == 0, run.stderr
    (metrics,) = script.folder.glob("outputs/**/metrics.json")
    test = script.metrics(str(metrics.parent.relative_to(script.folder)))["test"]
    assert test["hit_rate@10"] > 0.1, test  # chance has 10 of 200 items, .05


def test_all_benchmarks_are_listed():
    listed = re.search(r"`benchmark=([\w|]+)`", (ROOT / "README.md").read_text())[1].split("|")
    files = {path.stem for path in (ROOT / "conf" / "benchmark").glob("*.yaml")}
    assert sorted(listed) == sorted(files - {"step"})  # the default, shown as a command
