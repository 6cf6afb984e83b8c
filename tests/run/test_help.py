"""``--help``: the comments of ``conf/``, whose values, examples and names are true."""

import re
import shlex

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from tests.conftest import ROOT
from twotower.errors import UserError
from twotower.run.checks.checks import check_config
from twotower.run.command_line import in_this_form
from twotower.run.conf import CONF, HIDDEN, PARTS, groups, known, options, read, roots
from twotower.run.help import show_help

COMMANDS = sorted(path.stem for path in (ROOT / "src").glob("*.py"))
FILES = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.rglob("*.yaml"))


def leaves(node, prefix=""):
    for key, value in node.items():
        if key in HIDDEN:
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", FILES)
def test_settings_are_those_of_the_file(name):
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text()) or {}
    found = {key: setting.value for key, setting in read(name, "").settings.items()}
    found = {key: yaml.safe_load(value) for key, value in found.items() if value}
    assert found == dict(leaves(node))


@pytest.mark.parametrize("name", [name for name in FILES if "/" in name])
def test_every_option_says_what_it_is(name):
    assert len(read(name).about) > 8, f"conf/{name}.yaml needs a comment on its first line"


def test_comments_are_read_beside_and_above():
    found = read("data/base").settings
    assert found["data.eval_batch_size"] == ("1024", "users per evaluation step")
    assert found["data.batch_size"].value == "null"  # derived
    assert found["data.shuffle_window"].comment.startswith("4_000_000: shuffle windows of that")
    assert found["data.shuffle_window"].comment.endswith("null: all at once")
    assert found["data.data_dir"].comment == ""
    assert read("data/table").settings["data.reader.quote"].value == "'\"'"
    assert read("loss/dat").settings["loss.alignment"].value == ""  # a node with a comment
    assert read("experiment/dat_paper").settings["data.batch_size"].value == "256"
    assert read("model/mvke").examples.popitem()[0].endswith(" data=taobao")  # on two lines


@pytest.mark.parametrize("command", COMMANDS)
def test_five_examples_compose(command, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # of a command of another test
    examples = read(command).examples
    assert len(examples) == 5 and read(command).about
    for example in examples:
        python, script, *overrides = shlex.split(example.replace("<run folder>", "run"))
        assert (python, script) == ("python", f"src/{command}.py")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(command, [text for text in overrides if text != "-m"])
        check_config(config)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    show_help(command, [])
    shown = capsys.readouterr().out
    for example in read(command).examples:
        assert f"\n  {example}\n" in shown  # on one line
    for group in groups(command):
        assert f"\n  {group}=" in shown
    for root in roots(command):
        assert all(f"\n  {name}" in shown for name in read(root).settings)
    assert "???" not in shown and not re.search(r"\bbase\b", shown)
    examples = [f"  {example}" for example in read(command).examples]
    lines = [line for line in shown.splitlines() if line not in examples]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("name", "shown", "hidden"),
    [
        ("data", ["data=table", "Your own clicks", "data.k_core=5"], ["data=base", "???"]),
        ("data/split", ["data/split=temporal", "One clock for all users", "min_history=1"], []),
        ("data=table", ["inferred", "data.k_core=0", "data.reader.columns.time=null"], ["num_us"]),
        ("data=globo", ["data.split.val_from=0.98", "data.split.test_from=0.99"], ["???"]),
        ("loss", ["loss=plain", "loss.lambda3=1.0", "loss.task.temperature=null"], []),
        ("experiment=dat_paper", ["data.batch_size=256", "section 3.2"], ["k_core"]),
        ("callbacks", ["callbacks=speed", "callbacks.early_stopping.patience"], []),
        ("data.reader.columns", ["data.reader.columns.category=null"], ["reader.items"]),
        ("seed", ["seed=0"], ["k_core"]),
    ],
)
def test_a_group_an_option_and_a_setting_are_explained(name, shown, hidden, capsys):
    show_help("train", [name])
    text = capsys.readouterr().out
    for part in shown:
        assert part in text
    for part in hidden:
        assert part not in text


@pytest.mark.parametrize(
    ("command", "name", "hint"),
    [
        ("train", "modle", "did you mean model?"),
        ("train", "lambda3", "did you mean loss.lambda3?"),
        ("train", "data=nothing", "no such group, option or setting"),
        ("train", "data=base", "no such group, option or setting"),
        ("train", "xyzzy", "--help alone lists them"),
        ("evaluate", "data", "no such group, option or setting"),
    ],
)
def test_an_unknown_topic_is_one_line(command, name, hint):
    with pytest.raises(UserError, match=re.escape(hint)):
        show_help(command, [name])


def test_the_command_line_asks_for_help(script):
    run = script("train", "model=mf", "--help")
    assert run.returncode == 0 and run.stdout.startswith("Train a model")
    run = script("evaluate", "-h", "trainer")
    assert run.returncode == 0 and "trainer.devices=1" in run.stdout
    run = script("train", "--help", "lamda3")
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr


def test_examples_have_the_form_of_the_command_that_runs(monkeypatch):
    for program, form in {
        "src/export.py": "python src/export.py",
        "/venv/bin/twotower": "twotower export",
        "/venv/twotower/__main__.py": "python -m twotower export",
    }.items():
        monkeypatch.setattr("sys.argv", [program])
        assert in_this_form("python src/export.py check=served") == f"{form} check=served"


def test_parts_are_no_options():
    for name in PARTS:
        group, _, part = name.rpartition("/")
        assert (CONF / f"{name}.yaml").exists() and part not in options(group)
    assert known("train")["data.k_core"] and "benchmark" not in known("train")
