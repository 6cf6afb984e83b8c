"""Files beside the code: locked versions, citation, workflow, forms, index and links."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.helpers.project import EXTRAS, PROJECT

GROUPS = [PROJECT["dependencies"], *EXTRAS.values()]
REQUIREMENTS = [Requirement(line) for group in GROUPS for line in group]
LOCKED = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").rglob("*.md")]


def locked(name: str) -> list[Requirement]:
    """The lines of constraints.txt for a package: several where Pythons differ."""
    return [line for line in LOCKED if canonicalize_name(line.name) == canonicalize_name(name)]


def read_yaml(path: str):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_is_locked_within_its_range(requirement):
    lines = locked(requirement.name)
    assert lines, f"{requirement.name} is not in constraints.txt: run make lock"
    for line in lines:
        (pin,) = line.specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), line


def test_all_installed_dependencies_are_locked():
    waiting, seen = [(requirement, "") for requirement in REQUIREMENTS], set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:
            key = (canonicalize_name(requirement.name), wanted)
            try:
                needs = importlib.metadata.requires(requirement.name) or []
            except importlib.metadata.PackageNotFoundError:  # an extra that is not installed here
                continue
            if key not in seen:
                seen.add(key)
                waiting += [(Requirement(need), wanted) for need in needs]
    assert len(seen) > 50
    missing = sorted(name for name, _ in seen if not locked(name))
    assert not missing, f"constraints.txt lacks {missing}: run make lock"


@pytest.mark.parametrize("python", ["3.10.13", "3.11.7", "3.12.1", "3.13.0"])
def test_each_supported_python_can_have_the_locked_versions(python):
    """Of the versions that are installed here; CI installs all of them with the oldest Python."""
    assert python in SpecifierSet(PROJECT["requires-python"])
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    checked = 0
    for line in LOCKED:
        if line.marker and not line.marker.evaluate(environment):
            continue
        for found in importlib.metadata.distributions(name=line.name):
            supported = found.metadata["Requires-Python"]
            if supported and found.version in line.specifier:
                checked += 1
                assert python in SpecifierSet(supported), f"{line} needs Python {supported}"
    assert checked > 50


def test_the_oldest_and_newest_python_are_the_same_everywhere():
    assert PROJECT["requires-python"] == ">=3.10,<3.14"
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'target-version = "py310"' in pyproject and 'python_version = "3.10"' in pyproject
    assert "--python-version 3.10" in (ROOT / "Makefile").read_text()
    versions = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.10", "3.13"]


def test_the_workflow_and_the_hooks_call_existing_commands():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        assert re.match(r"make (\w+)", command)[1] in targets, command
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "hooks run the locked versions, from .venv"
    for hook in repository["hooks"]:
        package = hook["entry"].removeprefix(".venv/bin/").split()[0]
        assert locked(package), hook


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("listed", "visible", "launcher"),
    [
        ("GPU 0: NVIDIA H200", None, "fused"),
        ("GPU 0: NVIDIA H200", "", "joblib"),
        ("No devices found.", None, "joblib"),
    ],
)
def test_the_ablation_is_trained_in_passes_where_a_gpu_is(tmp_path, listed, visible, launcher):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{listed}'\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    command = ["make", "--dry-run", "ablation"]
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f" hydra/launcher={launcher}" in shown.stdout


def test_the_citation_names_the_project_and_the_paper():
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(citation)
    assert citation["title"] == PROJECT["name"] and citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]["text"]
    (paper,) = citation["references"]
    assert paper["title"].startswith("A Dual Augmented Two-tower Model")
    assert [author["family-names"] for author in paper["authors"]] == ["Yu", "Wang", "Feng", "Xue"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_valid(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    ids = [part["id"] for part in fields]
    assert len(ids) == len(set(ids)) and all(part["attributes"]["label"] for part in fields)


def test_the_changelog_has_the_expected_sections():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, re.M)
    assert versions[0] == "Unreleased"
    kinds = set(re.findall(r"^### (.+)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_index_lists_every_document():
    linked = set(re.findall(r"\]\(([\w.]+)\)", (ROOT / "docs" / "README.md").read_text()))
    suffixes = (".md", ".ipynb")
    documents = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in suffixes}
    assert linked >= documents - {"README.md"}, documents - linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_exist(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        if "://" not in link and not link.startswith("mailto:"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_tutorial_contains_no_absolute_paths():
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert outputs
    for output in outputs:
        assert output["output_type"] != "error"
        text = "".join(output.get("text") or output["data"]["text/plain"])
        assert not re.search(r"(?<!\S)/\w", text), f"an absolute path: {text}"
