"""Options, files and functions that the documents list exist, and the traced lists are true."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CONF = ROOT / "conf"
PACKAGE = ROOT / "src" / "twotower"
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
SMOKE = ["debug=smoke", "callbacks.progress=null", "trainer.enable_progress_bar=false"]


def section(heading):
    return ARCHITECTURE.split(f"## {heading}\n")[1].split("\n## ")[0]


def listed(text):
    """The functions in a list; a name without a path belongs to the path before it."""
    found = []
    for path, names in re.findall(r"`([\w/]+\.py):(\w+`(?:, `\w+`)*)", text):
        found += [f"{path}:{name}" for name in re.findall(r"\w+", names)]
    return found


@pytest.mark.parametrize("group", ["data", "model", "negatives", "optimizer", "scheduler"])
def test_options_in_the_readme_exist(group):
    (row,) = re.findall(rf"^\| `{group}=` \|(.*)\|$", README, re.M)
    options = re.findall(r"(?<!\S)`(\w+)`", row)
    assert options, group
    for name in options:
        assert (CONF / group / f"{name}.yaml").exists(), f"README lists {group}={name}"


def test_the_data_sets_of_the_readme_are_described():
    (row,) = re.findall(r"^\| `data=` \|(.*)\|$", README, re.M)
    for name in re.findall(r"`(\w+)`", row):
        assert f"`{name}`" in (ROOT / "docs" / "data.md").read_text(), f"docs/data.md lacks {name}"


def test_files_and_folders_in_the_architecture_exist():
    paths = re.findall(r"`((?:[a-z_]+/)+(?:\w+\.py)?)(?::\w+)?`", ARCHITECTURE)
    assert len(paths) > 40
    for path in paths:
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


@pytest.fixture
def traced(tmp_path):
    """Trains for a few steps; returns each function that was called, with its first callers."""

    def run(*settings):
        folders = [f"hydra.run.dir={tmp_path}/run", f"paths.cache_dir={tmp_path}/cache"]
        program = [sys.executable, ROOT / "tests" / "helpers" / "trace.py", ROOT / "src"]
        command = [*program, tmp_path / "trace.json", *settings, *folders, *SMOKE]
        subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
        return json.loads((tmp_path / "trace.json").read_text())

    return run


@pytest.mark.slow
def test_the_calls_from_the_command_line_to_the_log_are_listed(traced):
    callers = traced("model=dat", "loss.lambda3=0.5")
    stack = callers["losses/dat.py:__init__"] + callers["losses/dat.py:forward"]
    calls = list(dict.fromkeys(stack))
    assert listed(section("From the command line to the log"))[: len(calls)] == calls
    assert len(calls) <= 10
    assert len({call.split(":")[0] for call in calls}) <= 5  # src/train.py is the sixth


@pytest.mark.slow
def test_the_functions_from_a_csv_file_to_a_rank_are_called(traced, tmp_path):
    pairs = [(user, n) for user in range(60) for n in range(8)]
    rows = [f"u{user:03},{(7 * user + n * n) % 40},{20 * user + n}" for user, n in pairs]
    (tmp_path / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    callers = traced("model=mf", "data=table", f"data.reader.interactions={tmp_path}/clicks.csv")
    functions = listed(section("From a CSV file to a rank"))
    assert len(functions) <= 40
    assert len({function.split(":")[0] for function in functions}) <= 15
    assert set(functions) <= set(callers), set(functions) - set(callers)


def test_links_of_the_site_lead_to_its_pages():
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site.py")
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    names = site.pages()
    text = "[data](docs/data.md#card) [`conf/`](conf) [all](docs/README.md) [x](https://x.org/a)"
    expected = "[data](data.md#card) `conf/` [all](index.md) [x](https://x.org/a)"
    assert site.with_site_links(text, ROOT / "README.md", names) == expected
    text = "[start](../README.md) [dat](dat.md)\n\n```sh\n[a](dat.md.x)\n```\n"
    expected = "[start](index.md) [dat](dat.md)\n\n```sh\n[a](dat.md.x)\n```\n"
    assert site.with_site_links(text, ROOT / "docs" / "data.md", names) == expected
