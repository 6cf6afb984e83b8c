"""Which classes a checkpoint may name, by the place where they stand in its config.

Everywhere that is what the options of ``conf/`` name in that place, word for word, and for the
optimizer also torch's. A name that is not written there is never imported.
"""

import re
from functools import cache
from typing import Any

import torch
from omegaconf import OmegaConf

from twotower.errors import UserError
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
    "metric",
)
REQUIRED = ("data", "data.reader", "data.split", "negatives", "model", "loss", "optimizer")
NAMES = ("name", "folder", "variant", "dataset", "category")  # a reader's, which become file names
PLAIN_NAME = re.compile(r"\w[\w.+&-]*")


def check_roles(root: str, node: Any) -> None:
    """Refuse what a checkpoint's config must not build.

    Args:
        root: one of the config's roots, such as ``model``.
        node: plain containers below it.

    Raises:
        UserError: for a target that has no business in its place, a target where none belongs, and
            instructions to the builder.
    """
    for place in REQUIRED:
        if place.split(".")[0] == root and not _is_built(root, node, place):
            raise UserError(f"its config has no {place}")
    if root == "metric" and not isinstance(node, dict):
        raise UserError("its config has no metric")
    _check(root, node, in_list=False)
    if root == "data":
        _check_names(node["reader"])


def _is_built(root: str, node: Any, place: str) -> bool:
    for part in place.split(".")[1:]:
        node = node.get(part) if isinstance(node, dict) else None
    return isinstance(node, dict) and "_target_" in node


def _check(place: str, node: Any, in_list: bool) -> None:
    if isinstance(node, list):
        for value in node:
            _check(place, value, in_list=True)
        return
    role = None if in_list else _allowed().get(_role(place))
    if not isinstance(node, dict):
        if role is not None and (node is not None or not place.startswith("metric.")):
            raise UserError(f"its config has {node!r} in the place of {place}")
        return
    if role is not None or "_target_" in node:
        _check_target(place, node, role or {})
    for key, value in node.items():
        if str(key).startswith("_") and not (role is not None and key in ("_target_", "_partial_")):
            raise UserError(f"its config gives {place}.{key}, which no checkpoint may: refused")
        _check(f"{place}.{key}", value, in_list)


def _check_target(place: str, node: dict[str, Any], role: dict[str, bool]) -> None:
    target = node.get("_target_")
    is_partial = role.get(target) if isinstance(target, str) else None
    if place == "optimizer" and _is_torch_optimizer(target):
        is_partial = True
    if is_partial is None:
        raise UserError(f"its config would build {target} as {place}, where it does not belong: refused")
    if node.get("_partial_", False) is not is_partial:
        raise UserError(f"its config gives {place}._partial_={node.get('_partial_')}: refused")


def _is_torch_optimizer(target: Any) -> bool:
    name = str(target).removeprefix("torch.optim.")
    found = getattr(torch.optim, name, None) if target == f"torch.optim.{name}" else None
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and found.__module__.startswith("torch.optim.")


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
