"""Which classes a checkpoint may name, by the place where they stand in its config.

Everywhere that is what the options of ``conf/`` name in that place, word for word, for the
optimizer also torch's, and classes of packages that the user says to trust. Any other name is never
imported.
"""

import re
from functools import cache
from typing import Any

import torch
from omegaconf import OmegaConf

from twotower.errors import UserError
from twotower.run.checkpoint.trusted import check_trusted
from twotower.run.checks.checks import CONF

GROUPS = (
    "data",
    "data/split",
    "negatives",
    "model",
    "model/history",
    "loss",
    "loss/task",
    "optimizer",
    "scheduler",
    "metric",
)
REQUIRED = ("data", "data.reader", "data.split", "negatives", "model", "loss", "optimizer")
NAMES = ("name", "folder", "variant", "dataset", "category")  # a reader's, which become file names
PLAIN_NAME = re.compile(r"\w[\w.+&-]*")


def check_roles(root: str, node: Any, trusted: tuple[str, ...] = ()) -> None:
    """Refuse what a checkpoint's config must not build.

    Args:
        root: one of the config's roots, such as ``model``.
        node: plain containers below it.
        trusted: prefixes of the names of packages, which may be built anywhere.

    Raises:
        UserError: for a target that has no business in its place, a target where none belongs, and
            instructions to the builder.
    """
    for place in REQUIRED:
        if place.split(".")[0] == root and not _is_built(root, node, place):
            raise UserError(f"its config has no {place}")
    if root == "metric" and not isinstance(node, dict):
        raise UserError("its config has no metric")
    _check(root, node, False, trusted)
    if root == "data":
        _check_names(node["reader"])


def _is_built(root: str, node: Any, place: str) -> bool:
    for part in place.split(".")[1:]:
        node = node.get(part) if isinstance(node, dict) else None
    return isinstance(node, dict) and "_target_" in node


def _check(place: str, node: Any, in_list: bool, trusted: tuple[str, ...]) -> None:
    if isinstance(node, list):
        for value in node:
            _check(place, value, True, trusted)
        return
    role = None if in_list else _allowed().get(_role(place))
    if not isinstance(node, dict):
        if role is not None and (node is not None or not place.startswith("metric.")):
            raise UserError(f"its config has {node!r} in the place of {place}")
        return
    if role is not None or "_target_" in node:
        _check_target(place, node, role or {}, trusted)
    for key, value in node.items():
        if str(key).startswith("_") and not (
            "_target_" in node and key in ("_target_", "_partial_")
        ):
            raise UserError(f"its config gives {place}.{key}, which no checkpoint may: refused")
        _check(f"{place}.{key}", value, in_list, trusted)


def _check_target(
    place: str, node: dict[str, Any], role: dict[str, bool], trusted: tuple[str, ...]
) -> None:
    target, is_partial = node.get("_target_"), node.get("_partial_", False)
    expected = role.get(target) if isinstance(target, str) else None
    if place == "optimizer" and _is_torch_optimizer(target):
        expected = True
    if expected is None:
        check_trusted(place, target, trusted)
        expected = is_partial is True  # the class's author knows
    if is_partial is not expected:
        raise UserError(f"its config gives {place}._partial_={is_partial}: refused")


def _is_torch_optimizer(target: Any) -> bool:
    name = str(target).removeprefix("torch.optim.")
    found = getattr(torch.optim, name, None) if target == f"torch.optim.{name}" else None
    return (
        isinstance(found, type)
        and issubclass(found, torch.optim.Optimizer)
        and found.__module__.startswith("torch.optim.")
    )


def _check_names(reader: dict[str, Any]) -> None:
    """What becomes a part of a path must not lead out of its folder."""
    for key in NAMES:
        value = reader.get(key)
        if isinstance(value, str) and not PLAIN_NAME.fullmatch(value):
            raise UserError(f"its config has data.reader.{key}={value!r}, which is no plain name")
    for pattern in reader.get("clicks") or []:  # globs below the data set's own folder
        if str(pattern).startswith("/") or ".." in str(pattern).split("/"):
            raise UserError(f"its config has data.reader.clicks={pattern!r}, which leads elsewhere")


@cache
def _allowed() -> dict[str, dict[str, bool]]:
    """For each place the targets that an option names there, and whether it says ``_partial_``."""
    found: dict[str, dict[str, bool]] = {}
    for group in GROUPS:
        for path in sorted((CONF / group).glob("*.yaml")):
            option = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            _collect(group.replace("/", "."), option, found)
    return found


def _collect(place: str, node: Any, found: dict[str, dict[str, bool]]) -> None:
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        role = found.setdefault(_role(place), {})
        role[node["_target_"]] = bool(node.get("_partial_", False))
    for key, value in node.items():
        _collect(f"{place}.{key}", value, found)


def _role(place: str) -> str:
    """Any metric may stand under any name, and any negatives beside others."""
    if place in ("negatives.first", "negatives.second"):
        return "negatives"
    root, *rest = place.split(".")
    return "metric.*" if root == "metric" and len(rest) == 1 else place
