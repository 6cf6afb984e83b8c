"""Checks of a composed config before anything is built, or torch is imported.

Every value is compared with the argument that it will be given to. A whole float becomes an int
where an int is wanted.
"""

import difflib
import math
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from twotower import errors
from twotower.errors import UserError
from twotower.run.checks import foreign
from twotower.run.checks.own_code import CURE, is_installed
from twotower.run.checks.roots import LEAVES, ROOTS
from twotower.run.checks.signatures import Parameter, Signature, read_signature
from twotower.run.command_line import missing
from twotower.run.settings import DERIVED
from twotower.wording import clip

LARGEST = 3.4e38  # in float32
LARGEST_WHOLE = 2**63 - 1
GIVEN = ("schema", "num_groups", "params", "optimizer", "num_steps")  # by code, not by the config
LIBRARIES = ("torch", "torchmetrics", "pytorch_lightning", "lightning")  # see foreign.ARGUMENTS
UNKNOWN = object()  # an interpolation that has no value yet


def check_config(config: DictConfig) -> None:
    """Check what needs neither data nor torch; write whole floats as the ints that they stand for.

    Args:
        config: of any command, without Hydra's own node.

    Raises:
        UserError: naming the setting.
    """
    plain = {str(key): _plain(config, key) for key in config}
    added = _added_roots() if HydraConfig.initialized() else set()
    for name, value in plain.items():
        if name not in ROOTS or name in added:
            close = suggest(name, plain.keys() - added & ROOTS.keys())
            raise UserError(f"unknown setting {name}{close}")
        plain[name] = _checked(name, value, ROOTS[name])
        check_types(name, plain[name])
    if plain.get("dry") is True and HydraConfig.initialized():  # our sweeper starts no job
        raise UserError("dry=true is for the train command alone, with hydra/sweeper=resumable")
    if "dry" in plain:  # the command trains
        _check_together(plain)
    if "check" in plain and not (plain["check"] or plain["ckpt_path"]):  # export takes one of two
        raise UserError(f"{missing('ckpt_path')} (or check=<an exported folder>)")
    _write_back(config, plain)


def _added_roots() -> set[str]:
    """Settings at the root that the command line adds (``+k=1``): no command reads them."""
    overrides = list(HydraConfig.get().overrides.task)
    added = {
        override.key_or_group
        for override in OverridesParser.create().parse_overrides(overrides)
        if override.is_add() and not override.is_force_add()
    }
    return {name for name in added if "." not in name} - HydraConfig.get().runtime.choices.keys()


def check_monitors(callbacks: dict[str, Any], measured: Collection[str]) -> None:
    """Refuse a callback with a monitor that is not measured, before a whole epoch is trained.

    Args:
        callbacks: nodes by name.
        measured: names of metrics.

    Raises:
        UserError: with the metrics of the most similar names.
    """
    for name, callback in callbacks.items():
        monitor = (callback or {}).get("monitor")
        if monitor is not None and monitor not in measured:
            nearest = ", ".join(difflib.get_close_matches(monitor, measured, n=3, cutoff=0))
            raise UserError(
                f"callbacks.{name}.monitor={monitor} is not measured: choose {nearest}, or another "
                "of metric.*, or add to metric.*.k"
            )


def _check_together(plain: dict[str, Any]) -> None:
    """Refuse settings of a training that do not fit one another."""
    for name in ("data", "negatives", "model", "loss", "optimizer", "trainer", "callbacks"):
        if name not in plain:
            raise UserError(f"~{name} removes what every run needs: leave it out")
    best, last = (plain["callbacks"].get(name) for name in ("best", "last"))
    if not best and not last:
        raise UserError(
            "callbacks.best=null and callbacks.last=null: one of them has to keep the weights to "
            "test"
        )
    if best and best.get("save_top_k", 1) != 1 and "{" not in best.get("filename", "{"):
        raise UserError(
            f"callbacks.best.save_top_k={best['save_top_k']} would write several checkpoints to "
            "one file: give each its name, callbacks.best.filename='best-{epoch}'"
        )
    if plain["optimizer"].get("_partial_") is not True:
        raise UserError("optimizer._partial_ must be true: the parameters are given later")
    if plain["optimizer"].get("fused") and plain["optimizer"].get("foreach"):
        raise UserError("optimizer.fused=true and optimizer.foreach=true exclude each other")


def check_types(path: str, node: Any) -> None:
    """Compare every node with its constructor, and write whole floats as ints.

    Args:
        path: dotted name of the node.
        node: plain containers.

    Raises:
        UserError: for a setting that the constructor does not have, or a value that it refuses.
    """
    if not isinstance(node, dict):
        _checked(path, node, LEAVES.get(path, Any))
        return
    for key, value in node.items():
        check_types(f"{path}.{key}", value)
    if "_target_" not in node:
        return
    signature = _signature(path, node)
    if signature is None:
        return
    name = node["_target_"].split(".")[-1]
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        if key not in signature.parameters:
            close = suggest(key, signature.parameters)
            raise UserError(f"unknown setting {path}.{key} of {name}{close}")
        node[key] = _checked(f"{path}.{key}", value, signature.parameters[key].hint)
    for key, parameter in signature.parameters.items():
        if parameter.required and key not in node and key not in GIVEN:
            raise UserError(f"{path}.{key} is missing: {name} needs it")
    for check in signature.checks:  # the constructor will make them again
        value = node.get(check.parameter)
        if value is not None and value is not UNKNOWN:
            getattr(errors, check.function)(check.setting, value, *check.limits)


def _signature(path: str, node: dict[str, Any]) -> Signature | None:
    """The arguments of a node's constructor, None if they are not known without importing it."""
    target = node["_target_"]
    if not isinstance(node.get("_partial_", False), bool):
        raise UserError(f"{path}._partial_ must be true or false, got {node['_partial_']!r}")
    if not isinstance(target, str) or "." not in target.strip("."):
        raise UserError(f"{path}._target_ must be the dotted name of a class, got {target!r}")
    if not is_installed(target):
        package = target.split(".")[0]
        raise UserError(f"{path}._target_={target}: there is no package {package}: {CURE}")
    if target in foreign.ARGUMENTS:
        hints = foreign.ARGUMENTS[target]
        return Signature({name: Parameter(hint) for name, hint in hints.items()})
    return None if target.split(".")[0] in LIBRARIES else read_signature(target)


def suggest(word: str, options: Iterable[str]) -> str:
    """`` (did you mean …?)``, or nothing if no option is like ``word``."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _checked(path: str, value: Any, hint: Any) -> Any:
    """The value, with whole floats as ints if it fits only so.

    Raises:
        UserError: if it does not fit.
    """
    if value is UNKNOWN or (value is None and path in DERIVED):
        return value
    if value == "???":
        raise missing(path)
    _check_size(path, value)
    known = _without_unknown(value)
    error = _misfit(known, hint)
    if error is None:
        return value
    if _misfit(_with_whole_numbers(known), hint) is None:
        return _with_whole_numbers(value)
    raise UserError(_line(path, known, error))


def _line(path: str, value: Any, error: ValidationError) -> str:
    """What is wrong, for the innermost setting that pydantic names."""
    first, *_ = error.errors()
    for part in first["loc"]:  # names of settings, and then tags of pydantic's own
        if not isinstance(value, dict) or part not in value:
            break
        path, value = f"{path}.{part}", value[part]
    reasons: dict[str, None] = {}  # one for each type of a union
    for other in error.errors():
        if other["input"] is first["input"]:
            text = other["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            reasons[text] = None
    return f"{path} must be {' or '.join(reasons)}, got {clip(repr(value), 60)}"


def _misfit(value: Any, hint: Any) -> ValidationError | None:
    try:
        _adapter(hint).validate_python(value)
    except ValidationError as error:
        return error
    return None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


def _without_unknown(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_unknown(one) for key, one in value.items() if one is not UNKNOWN}


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_whole_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: _with_whole_numbers(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_size(path: str, value: Any) -> None:
    """Refuse numbers that are not finite, or too large for the formats of the computation."""
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
    """The resolved value of a key in plain containers; UNKNOWN where it is not known yet."""
    if OmegaConf.is_missing(config, key):
        return "???"
    try:
        value = config[key]
        if isinstance(value, DictConfig):
            return {name: _plain(value, name) for name in value}
        if OmegaConf.is_config(value):
            return OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException as error:
        if HydraConfig.initialized():  # else it may be of the run, and known later
            raise UserError(f"{error.full_key or key}: {str(error).splitlines()[0]}") from None
        return UNKNOWN
    # the folder of a run has no value before the run
    return UNKNOWN if value is None and OmegaConf.is_interpolation(config, key) else value


def _write_back(config: DictConfig, plain: dict[str, Any]) -> None:
    """Set the values that have changed, except interpolations: what they repeat is set."""
    for key, value in plain.items():
        is_text = OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key)
        if value is UNKNOWN or is_text:
            continue
        if isinstance(value, dict):
            _write_back(config[key], value)
        elif isinstance(value, (int, list)) and repr(value) != repr(_plain(config, key)):
            config[key] = value
