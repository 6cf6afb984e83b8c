"""The installed package: what its wheel holds, its command, and the Dockerfile."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.project import EXTRAS
from twotower import __main__ as program
from twotower.run import cli, conf
from twotower.run.commands import COMMANDS
from twotower.wording import typed

DOCKERFILE = re.sub(r"#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", "")
STEPS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line.strip()]
COPIED = [path for step, text in STEPS if step == "COPY" for path in text.split()[:-1]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the files that the Dockerfile copies."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in COPIED:
        (folder / path).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, folder / path, **({"symlinks": True} if path == "src" else {}))
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_all_that_a_command_reads(wheel):
    files = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"twotower/{path.relative_to(ROOT)}" in files
    for path in (ROOT / "src" / "twotower").rglob("*.py"):
        assert str(path.relative_to(ROOT / "src")) in files
    assert {
        "hydra_plugins/twotower_fused.py",
        "hydra_plugins/twotower_sweeper.py",
        "twotower/py.typed",
        "twotower/report/published.yaml",
    } <= files


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The command of an environment that has the wheel, and all other packages from this one."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = sysconfig.get_path("purelib", "venv", vars={"base": str(folder)})
    (Path(packages) / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    options = ["--quiet", "--no-deps", "--ignore-installed", "--no-index"]
    subprocess.run([*pip, *options, wheel], check=True)
    return folder / "bin" / "twotower"


@pytest.mark.slow
def test_an_empty_folder_is_enough(installed, tmp_path, script):
    script.env.pop("PYTHONPATH", None)
    del script.env["TWOTOWER_OUTPUT_DIR"]
    (tmp_path / ".env").write_text("TWOTOWER_OUTPUT_DIR=runs")

    def run(*arguments, program=(installed,)):
        command = [*program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=script.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ["debug=smoke", "callbacks.progress=null", "trainer.enable_progress_bar=false"]
    small += ["callbacks.diagnostics=null", "model=mf"]
    sweep = run("train", "-m", *small, "seed=0", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert "twotower report runs=runs/sweeps/single-synthetic" in sweep
    as_module = (installed.with_name("python"), "-m", "twotower")
    pair = [*small, "trainer.devices=2", "trainer.strategy=ddp"]
    run("train", *pair, "hydra.run.dir=runs/pair")
    run("train", "-m", *pair, "hydra.sweep.dir=runs/pairs", program=as_module)
    (found,) = tmp_path.glob("runs/pairs/*/metrics.json")
    for folder in ("runs/pair", str(found.parent.relative_to(tmp_path))):
        assert json.loads((tmp_path / folder / "metrics.json").read_text())["status"] == "completed"
    best = "ckpt_path=runs/pair/checkpoints/best.ckpt"
    assert "hit_rate@10" in run("evaluate", best)
    assert len(json.loads(run("recommend", best, "user_id=42", "k=3", "format=json"))) > 0
    run("export", best)
    assert (tmp_path / "runs" / "pair" / "export" / "manifest.json").exists()
    run("report", "runs=runs")
    assert (tmp_path / "runs" / "report" / "index.html").exists()
    last = "ckpt_path=runs/pair/checkpoints/last.ckpt"
    run("train", last, "trainer.max_epochs=2", *pair[-2:], program=as_module)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("called", ["twotower", "twotower/__main__.py"])
def test_a_command_gets_the_arguments_after_its_name(monkeypatch, called):
    given = []
    monkeypatch.setattr(cli, "command", lambda *given_: given.append(given_))
    monkeypatch.setattr(sys, "argv", [f"/usr/{called}", "recommend", "-m", "user_id=1"])
    program.main()
    assert given == [("recommend", ["-m", "user_id=1"])]
    assert sys.argv[1] == "recommend"  # Lightning starts further processes with it


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_program_lists_its_commands(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/twotower", *arguments])
    program.main()
    shown = capsys.readouterr().out
    assert "twotower train model=dat" in shown and "benchmark" not in shown
    for name in COMMANDS.keys() - {"benchmark"}:
        assert f"\n  {name} " in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_an_unknown_command_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["twotower", "trian", "model=dat"])
    with pytest.raises(SystemExit, match=r"unknown command trian \(did you mean train\?\)"):
        program.main()


def test_each_command_has_a_script_a_config_and_a_function():
    for name, command in COMMANDS.items():
        script = "report" if name == "list" else name
        assert f'command("{script}", sys.argv[1:])' in (ROOT / "src" / f"{script}.py").read_text()
        assert (ROOT / "conf" / f"{name}.yaml").exists()
        for dotted in filter(None, (command.function, command.in_sweep)):
            *folders, module, function = dotted.split(".")
            top = ROOT if folders == ["benchmarks"] else ROOT / "src"
            assert f"\ndef {function}(" in top.joinpath(*folders, f"{module}.py").read_text()


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("src/train.py", "python src/report.py"),
        ("/opt/venv/bin/twotower", "twotower report"),
        (
            "/opt/venv/lib/python3.11/site-packages/twotower/__main__.py",
            "python -m twotower report",
        ),
        ("/opt/venv/lib/python3.11/site-packages/pytest/__main__.py", "python src/report.py"),
        ("", "python src/report.py"),  # an interactive session
    ],
)
def test_commands_are_shown_as_the_program_was_called(monkeypatch, called, shown):
    monkeypatch.setattr(sys, "argv", [called])
    assert typed("report") == shown


def test_no_message_names_a_script_that_an_installed_package_lacks():
    for path in (ROOT / "src" / "twotower").rglob("*.py"):
        if path.name != "wording.py":
            assert not re.search(r"python src/\w+\.py", path.read_text()), (
                f"{path}: use wording.typed"
            )


def test_the_settings_are_those_of_this_repository():
    assert conf.CONF == ROOT / "conf"


def test_make_installs_every_extra():
    """An option that the README lists works after make."""
    (extras,) = re.findall(r"--editable '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text())
    assert set(extras.split(",")) == set(EXTRAS)


def test_the_docker_image_runs_the_command_without_being_root():
    (entry,) = [text for step, text in STEPS if step == "ENTRYPOINT"]
    assert json.loads(entry) == ["twotower"]
    *_, user = [text for step, text in STEPS if step == "USER"]
    assert int(user) > 0


def test_the_docker_image_installs_what_pyproject_requires():
    pytest.importorskip("tomllib")  # the image has a newer Python than the oldest supported
    (code,) = re.findall(r'python -c (".*?")', DOCKERFILE)
    shown = subprocess.check_output(
        [sys.executable, *shlex.split(f"-c {code}")], cwd=ROOT, text=True
    ).splitlines()
    assert set(shown) > {*EXTRAS["export"], *EXTRAS["sweep"], *EXTRAS["tensorboard"]}
    assert any(line.startswith("torch>=") for line in shown)


def test_docker_sees_only_what_it_copies():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(COPIED)
    assert "*" in ignored and all((ROOT / path).exists() for path in COPIED)
