"""Checks of a composed config before anything is built, or torch is imported.

Every value is compared with the argument that it will be given to; a float that is whole becomes an int where one is wanted.
"""

import difflib
import math
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from twotower import errors
from twotower.errors import UserError
from twotower.run.checks import foreign
from twotower.run.checks.own_code import CURE, is_installed
from twotower.run.checks.roots import COLLECTIONS, NODES, ROOTS, TRAINING
from twotower.run.checks.signatures import Check, Parameter, Part, Signature, read_signature

CONF = Path(__file__).parents[4] / "conf"
LARGEST = 3.4e38  # in float32
LARGEST_WHOLE = 2**63 - 1
EXAMPLES = {
    "ckpt_path": "<run folder>/checkpoints/best.ckpt",
    "runs": "outputs/sweeps/<name of a sweep>",
}
GIVEN = ("schema", "num_groups", "params", "optimizer", "num_steps")  # by run.py, not by the config
LIBRARIES = ("torch", "torchmetrics", "pytorch_lightning", "lightning")  # see foreign.ARGUMENTS
UNKNOWN = object()  # an interpolation that has no value yet


def check_config(config: DictConfig) -> None:
    """Check whatever needs neither data nor torch; write whole floats as the ints that they stand for.

    Args:
        config: of any command, without Hydra's own node.

    Raises:
        UserError: naming the setting.
    """
    plain = {str(key): _plain(config, key) for key in config}
    if HydraConfig.initialized():
        _check_command(plain, HydraConfig.get().job.config_name)
    missing = [name for name in TRAINING if name not in plain] if "dry" in plain else []
    if missing:
        raise UserError(f"{missing[0]} is missing: leave ~{missing[0]} out")
    for name, value in plain.items():
        if name not in ROOTS:
            raise UserError(f"{name} is no setting{suggest(name, plain.keys() & ROOTS.keys())}")
        plain[name] = _checked(name, value, ROOTS[name])
        inner = dict.fromkeys(value, Part | None) if name in COLLECTIONS else NODES.get(name, {})
        for key, hint in inner.items():
            plain[name][key] = _checked(f"{name}.{key}", value.get(key), hint)
        check_types(name, plain[name])
    if "dry" in plain:
        _check_together(plain)
    if "check" in plain and not (plain["check"] or plain["ckpt_path"]):  # export takes one of two
        raise UserError(
            f"ckpt_path is missing: give ckpt_path={EXAMPLES['ckpt_path']}, or check=<a folder>"
        )
    _write_back(config, plain)


def check_monitors(callbacks: dict[str, Any], measured: Collection[str]) -> None:
    """What a callback follows must be measured: Lightning would say so after a whole epoch.

    Args:
        callbacks: nodes by name.
        measured: names of metrics.

    Raises:
        UserError: with the metrics whose names are nearest.
    """
    for name, callback in callbacks.items():
        monitor = (callback or {}).get("monitor")
        if monitor is not None and monitor not in measured:
            nearest = ", ".join(difflib.get_close_matches(monitor, measured, n=3, cutoff=0))
            raise UserError(
                f"callbacks.{name}.monitor={monitor} is not measured: choose {nearest}, or another of metric.*, or "
                "add to metric.*.k"
            )


def _check_together(plain: dict[str, Any]) -> None:
    """Settings of a training that do not fit one another."""
    best, last = (plain["callbacks"].get(name) for name in ("best", "last"))
    if not best and not last:
        raise UserError(
            "callbacks.best=null and callbacks.last=null: one of them has to keep the weights to test"
        )
    if best and best.get("save_top_k", 1) != 1 and "{" not in best.get("filename", "{"):
        raise UserError(
            f"callbacks.best.save_top_k={best['save_top_k']} would write several checkpoints to one file: give each its name, "
            "callbacks.best.filename='best-{epoch}'"
        )
    if plain["optimizer"].get("_partial_") is not True:
        raise UserError("optimizer._partial_ must be true: the parameters are given later")
    if plain["optimizer"].get("fused") and plain["optimizer"].get("foreach"):
        raise UserError("optimizer.fused=true and optimizer.foreach=true exclude each other")
    metrics = plain["metric"].values()
    if all(node is None or str(node["_target_"]).startswith("twotower.") for node in metrics):
        check_monitors(_without_groups(plain["callbacks"]), _measured(plain["metric"]))


def _measured(metrics: dict[str, Any]) -> list[str]:
    """What a validation logs over all users."""
    found = []
    for name, node in metrics.items():
        if node is not None:
            found += (
                [f"val/{name}@{cut}" for cut in node["k"] or ()] if "k" in node else [f"val/{name}"]
            )
    return [*found, "val/zero_items"]


def _without_groups(callbacks: dict[str, Any]) -> dict[str, Any]:
    """Each callback's monitor without its group, which the data decide: ``val/head/mrr`` as ``val/mrr``."""
    found = {}
    for name, node in callbacks.items():
        parts = str((node or {}).get("monitor")).split("/")
        found[name] = {**node, "monitor": f"{parts[0]}/{parts[2]}"} if len(parts) == 3 else node
    return found


def check_types(path: str, node: Any) -> None:
    """Compare every known ``_target_`` of a plain node with its constructor, and write whole floats as ints.

    Raises:
        UserError: for a setting that the constructor does not have, or a value that it does not take.
    """
    if not isinstance(node, dict):
        _check_size(path, node)
        return
    for key, value in node.items():
        check_types(f"{path}.{key}", value)
    if "_target_" not in node:
        return
    if not isinstance(node.get("_partial_", False), bool):
        raise UserError(f"{path}._partial_ must be true or false, got {node['_partial_']!r}")
    target = node["_target_"]
    if not isinstance(target, str) or "." not in target.strip("."):
        raise UserError(f"{path}._target_ must be the dotted name of a class, got {target!r}")
    if not is_installed(target):
        package = target.split(".")[0]
        raise UserError(f"{path}._target_={target}: there is no package {package}: {CURE}")
    signature = _signature(target)
    if signature is None:
        return
    name = target.split(".")[-1]
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        if key not in signature.parameters:
            of = (
                f"{name} that works here" if target in foreign.ARGUMENTS else name
            )  # which may have more
            raise UserError(
                f"{path}.{key} is no setting of {of}{suggest(key, signature.parameters)}"
            )
        node[key] = _checked(f"{path}.{key}", value, signature.parameters[key].hint)
    for key, parameter in signature.parameters.items():
        if parameter.required and key not in node and key not in GIVEN:
            raise UserError(f"{path}.{key} is missing: {name} needs it")
    for check in signature.checks:
        _repeat(check, node)


def _check_command(plain: dict[str, Any], name: str | None) -> None:
    """Refuse a root of another command: a plus sign lets ``+k=1`` pass Hydra. A dry run never gets here."""
    known = _own_roots(name) if name else plain.keys()
    if name == "benchmark":
        known = known | _own_roots(
            f"benchmark/{plain.get('benchmark')}"
        )  # each has settings of its own
    for root in plain:
        if root not in known and root in ROOTS:
            raise UserError(
                f"{root} is no setting of src/{name}.py; the settings are {', '.join(sorted(known & ROOTS.keys()))}"
            )
    if plain.get("dry") is True:
        raise UserError("dry=true is for src/train.py alone, with hydra/sweeper=resumable")


@cache
def _own_roots(name: str) -> set[str]:
    """Keys and groups of ``conf/<name>.yaml`` and of those that it builds on."""
    path = CONF / f"{name}.yaml"
    if not path.is_file():  # one of the user's own, --config-name
        return set(ROOTS)
    node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    found = set(node)
    for entry in node.get("defaults", []):
        if isinstance(entry, dict):
            found |= {str(group).split("@")[-1].split(".")[0].split("/")[0] for group in entry}
        elif entry != "_self_":
            found |= _own_roots(entry)
    return found


def suggest(word: str, options: Iterable[str]) -> str:
    """`` (did you mean …?)``, or nothing if no option is like ``word``."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


@cache
def _signature(target: str) -> Signature | None:
    """What is known of a constructor without importing it, None if that is nothing."""
    if target in foreign.ARGUMENTS:
        return Signature(
            {name: Parameter(hint) for name, hint in foreign.ARGUMENTS[target].items()}
        )
    return None if target.split(".")[0] in LIBRARIES else read_signature(target)


def _repeat(check: Check, node: dict[str, Any]) -> None:
    """What the constructor will check first. It may skip null; and a name that depends on others is no setting."""
    value = node.get(check.parameter)
    if value is not None and value is not UNKNOWN:
        getattr(errors, check.function)(check.setting, value, *check.limits)


def _checked(path: str, value: Any, hint: Any) -> Any:
    """The value, with whole floats as ints if it fits so alone.

    Raises:
        UserError: if it does not fit.
    """
    if value is UNKNOWN:
        return value
    if value == "???":
        raise UserError(f"{path} is missing: give {path}={EXAMPLES.get(path, '…')}")
    _check_size(path, value)
    reason = _misfit(value, hint)
    if reason is None or _has_unknown(value):
        return value
    whole = _with_whole_numbers(value)
    if _misfit(whole, hint) is None:
        return whole
    shown = repr(value)
    raise UserError(
        f"{path} must be {reason}, got {shown if len(shown) < 60 else shown[:60] + '…'}"
    )


def _has_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_unknown, value.values()))
    return value is UNKNOWN


def _misfit(value: Any, hint: Any) -> str | None:
    """What the value should be, None if it is that."""
    try:
        _adapter(hint).validate_python(value)
    except ValidationError as error:
        reasons = [
            one["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            for one in error.errors()
        ]
        return " or ".join(dict.fromkeys(reasons))
    return None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_whole_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: _with_whole_numbers(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_size(path: str, value: Any) -> None:
    """Numbers are finite, and fit into the formats that they are computed in."""
    if isinstance(value, list):
        for one in value:
            _check_size(path, one)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if not math.isfinite(value):
        raise UserError(f"{path} must be a finite number, got {value!r}")
    if abs(value) > (LARGEST if isinstance(value, float) else LARGEST_WHOLE):
        raise UserError(f"{path} is too large a number, got {value!r}")


def _plain(config: DictConfig, key: Any) -> Any:
    """The resolved value of a key in plain containers, with UNKNOWN for interpolations of what is not there yet."""
    if OmegaConf.is_missing(config, key):
        return "???"
    try:
        value = config[key]
    except OmegaConfBaseException as error:
        if HydraConfig.initialized():  # else it may be of the run, and known later
            raise UserError(f"{error.full_key or key}: {str(error).splitlines()[0]}") from None
        return UNKNOWN
    if value is None and OmegaConf.is_interpolation(
        config, key
    ):  # of the run, whose folder is not known yet
        return UNKNOWN
    if isinstance(value, DictConfig):
        return {name: _plain(value, name) for name in value}
    try:
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return UNKNOWN


def _write_back(config: DictConfig, plain: dict[str, Any]) -> None:
    """Set the values that differ from those of the config, but interpolations: what they repeat is set."""
    for key, value in plain.items():
        if (
            value is UNKNOWN
            or OmegaConf.is_missing(config, key)
            or OmegaConf.is_interpolation(config, key)
        ):
            continue
        if isinstance(value, dict):
            _write_back(config[key], value)
        elif isinstance(value, (int, list)) and repr(value) != repr(_plain(config, key)):
            config[key] = value
