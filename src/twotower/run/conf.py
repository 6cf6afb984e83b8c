"""The files of ``conf/`` as text: comments, examples, and the names of groups and settings."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode

# in this repository twotower/conf is a link to conf/, in an installed package a folder
CONF = (Path(__file__).parents[1] / "conf").resolve()
PARTS = ("data/base",)  # what the options of a group share, and no options themselves
HIDDEN = ("_target_", "_partial_", "defaults", "hydra")  # keys that are not for users
MAX_SUGGESTED = 2
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it is there


class Setting(NamedTuple):
    """A setting, or a node of settings.

    Attributes:
        value: as on the command line; empty for a node.
        comment: on the lines above it, or beside it.
    """

    value: str
    comment: str


class File(NamedTuple):
    """What a YAML file says.

    Attributes:
        about: the comment at its head, without the commands.
        examples: the commands there, and what each does.
        groups: the groups and files in its list of defaults.
        settings: by their names on the command line.
    """

    about: str
    examples: dict[str, str]
    groups: dict[str, Setting]
    settings: dict[str, Setting]


def options(group: str) -> list[str]:
    """The options of a group such as ``data/split``."""
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return [name for name in names if f"{group}/{name}" not in PARTS]


def roots(command: str) -> list[str]:
    """The files of a command at the root of ``conf/``, its own last."""
    shared = [name for name in read(command).groups if not (CONF / name).is_dir()]
    return [root for name in shared for root in roots(name)] + [command]


def groups(command: str) -> dict[str, Setting]:
    """The groups of a command, those inside of others after them."""
    found = {}
    for root in roots(command):
        for name, setting in read(root).groups.items():
            for folder in (CONF / name, *sorted((CONF / name).glob("*/"))):
                if folder.is_dir():
                    group = folder.relative_to(CONF).as_posix()
                    found[group] = setting if group == name else Setting("", "")
    return found


def known(command: str) -> dict[str, list[str]]:
    """Every group and setting of a command, each with the options that have it."""
    found: dict[str, list[str]] = {}
    for root in roots(command):
        found.update({name: [] for name in read(root).settings})
    for group in groups(command):
        found[group] = []
        for path in sorted((CONF / group).glob("*.yaml")):
            for name in read(f"{group}/{path.stem}").settings:
                found.setdefault(name, []).append(f"{group}={path.stem}")
    return found


def defaults_list(command: str, overrides: Sequence[str] = ()) -> Any:
    """The files that Hydra would merge, in their order, without its own."""
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    found = loader.compute_defaults_list(command, list(overrides), RunMode.RUN)
    found.defaults = [item for item in found.defaults if "hydra/" not in str(item.config_path)]
    return found


def suggestion(command: str, name: str, arguments: Sequence[str] = ()) -> str:
    """`` (did you mean …?)`` for an unknown setting, or nothing if no known one is like it.

    Args:
        command: a file of ``conf/``.
        name: as it was typed.
        arguments: of the command line; settings of the options that they choose come first.
    """
    names = known(command)
    found = _short_for(name, _in_use(command, arguments))
    hint = f"did you mean {' or '.join(found)}?" if found else ""
    if owners := names.get(name):
        hint = "; ".join(filter(None, (f"a setting of {', '.join(owners)}", hint)))
    elif not found and (close := closest(command, name)):
        hint = f"did you mean {close}?"
    return f" ({hint})" if hint else ""


def _in_use(command: str, arguments: Sequence[str]) -> set[str]:
    """The settings of the options that the arguments choose."""
    chosen = []
    for argument in arguments:
        group, _, option = argument.lstrip("+").partition("=")
        if group in groups(command) and option in options(group):
            chosen.append(argument)
    files = defaults_list(command, chosen).defaults
    return {name for file in files for name in read(file.config_path, file.package).settings}


def _short_for(name: str, names: Iterable[str]) -> list[str]:
    """The names that have all parts of a shorter one, in its order, and end in its last."""
    *before, leaf = name.split(".")
    found = []
    for each in names:
        *rest, last = each.split(".")
        parts = iter(rest)  # which each part of the shorter name uses up to itself
        if last == leaf and each != name and all(part in parts for part in before):
            found.append(each)
    return sorted(found, key=lambda each: (each.count("."), each))[:MAX_SUGGESTED]


def closest(command: str, name: str) -> str:
    """The group or setting that a mistyped name may mean, empty if there is none.

    The last part of its name decides, so that ``lambda3`` finds ``loss.lambda3``.
    """
    names = known(command)
    *parents, leaf = re.split(r"[./]", name.replace("-", "_"))
    parts = {each: re.split(r"[./]", each) for each in names}
    leaves = sorted({last for *_, last in parts.values()})
    close = [leaf] if leaf in leaves else difflib.get_close_matches(leaf, leaves, 3, 0.7)

    def likeness(each: str) -> tuple[bool, int, int]:
        *before, last = parts[each]
        return before == parents, -close.index(last), len(names[each])

    return max((each for each in names if parts[each][-1] in close), key=likeness, default="")


@cache
def read(name: str, package: str | None = None) -> File:
    """A file of ``conf/``.

    Args:
        name: its path, without ``.yaml``.
        package: the node that its settings are in; None: as the file or its folder says.
    """
    text = (CONF / f"{name}.yaml").read_text("utf-8")
    lines = text.splitlines()
    root = yaml.compose(text, Loader)
    pairs = [] if root is None else root.value
    is_global = "# @package _global_" in lines[:1]
    if package is None:
        package = "" if is_global else name.rpartition("/")[0].replace("/", ".")
    about, examples = _head(lines[is_global:])
    listed = dict(_listed(pairs, lines))
    return File(about, examples, listed, dict(_settings(pairs, lines, package)))


def _head(lines: list[str]) -> tuple[str, dict[str, str]]:
    """The sentences of the first comment, and its commands, which are indented."""
    sentences, examples, command = [], {}, ""
    for line in lines:
        if not line.startswith("#"):
            break
        if not command and not line.startswith("#   "):
            sentences.append(line[1:].strip())
            continue
        command += line[1:].strip()
        if command.endswith("\\"):  # goes on in the next line
            command = command[:-1]
            continue
        typed, _, comment = command.partition("  # ")
        examples[typed.strip()] = comment.strip()
        command = ""
    return " ".join(sentences), examples


def _listed(pairs: list[Any], lines: list[str]) -> Iterator[tuple[str, Setting]]:
    """The groups and files in a list of defaults, in their order."""
    for key, defaults in pairs:
        if key.value != "defaults":
            continue
        for node in defaults.value:
            if isinstance(node, yaml.ScalarNode):
                if node.value != "_self_":
                    yield node.value, Setting("", "")
                continue
            ((name, value),) = node.value
            if not name.value.startswith("override "):
                yield name.value.split("@")[0], Setting(*_text(value, lines))


def _settings(pairs: list[Any], lines: list[str], parent: str) -> Iterator[tuple[str, Setting]]:
    for key, value in pairs:
        if key.value in HIDDEN:
            continue
        name = f"{parent}.{key.value}" if parent else key.value
        is_node = isinstance(value, yaml.MappingNode) and not value.flow_style
        shown, beside = ("", _text(key, lines)[1]) if is_node else _text(value, lines)
        comment = " ".join(filter(None, (_above(key.start_mark.line, lines), beside)))
        if shown or comment:
            yield name, Setting(shown, comment)
        if is_node:
            yield from _settings(value.value, lines, name)


def _text(node: Any, lines: list[str]) -> tuple[str, str]:
    """A node on one line as it is written, and the comment after it."""
    start, end = node.start_mark, node.end_mark
    line = lines[end.line]
    value = line[start.column if start.line == end.line else 0 : end.column]
    comment = line[end.column :].lstrip(": ").removeprefix("#").strip()
    return re.sub(r",\s+", ",", value), comment


def _above(number: int, lines: list[str]) -> str:
    """The comment on the lines directly above a line, unless it is the head of the file."""
    first = number
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(line.strip().lstrip("# ") for line in lines[first:number]) if first else ""
