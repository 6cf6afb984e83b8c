"""Arguments of constructors, read from their source: importing torch would take seconds.

In this package every annotation has a known form. Of other packages, only a few are understood.
"""

import ast
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import (
    AfterValidator,
    GetCoreSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, core_schema

from twotower.run.checks.own_code import source_of
from twotower.types import FeatureKind

OURS = "twotower"
# annotations that mean the same in any package; whether null is allowed is checked there
ELSEWHERE: dict[str, Any] = {
    "int": int | None,
    "float": float | None,
    "str": str | None,
    "bool": bool | None,
    "list[int]": list[int] | None,
    "list[str]": list[str] | None,
}
PLAIN: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "Any": Any,
    "FeatureKind": FeatureKind,
}
CHECKS = ("check_number", "check_choice")


class Words:
    """The description of a type in errors, in place of a list of all types of a union."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate as without it."""
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise ValueError(self.words) from None


def _has_target(node: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in node:
        raise ValueError
    return node


# the node of an object that is built
Part = Annotated[dict[str, Any], AfterValidator(_has_target), Words("a node with a _target_")]


class Parameter(NamedTuple):
    """One argument.

    Attributes:
        hint: type of its value in a config, where an object is a :data:`Part`.
        required: it has no default.
    """

    hint: Any
    required: bool = False


class Check(NamedTuple):
    """A call of ``check_number`` or ``check_choice`` in the constructor.

    Attributes:
        function: its name.
        parameter: the argument that it checks.
        setting: the name of that argument in messages.
        limits: its further arguments.
    """

    function: str
    parameter: str
    setting: str
    limits: tuple[Any, ...]


class Signature(NamedTuple):
    """The arguments of a constructor.

    Attributes:
        parameters: by name.
        checks: those that can be made without running the constructor.
    """

    parameters: dict[str, Parameter]
    checks: tuple[Check, ...] = ()


@cache
def read_signature(target: str) -> Signature | None:
    """Signature of a class or function, None if its source does not show it.

    Args:
        target: dotted name, ``twotower.models.dat.DAT``.
    """
    module, _, name = target.rpartition(".")
    path = source_of(module) if module else None
    try:
        tree = ast.parse(path.read_bytes()) if path is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return None  # the import will fail with the reason
    ours = module.split(".")[0] == OURS
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _signature(node, ours)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _constructor(module, tree, node, ours)
    origin = _module_of(name, module, tree)  # other than the module for layers.history.GRU
    return read_signature(f"{origin}.{name}") if ours and origin != module else None


def _constructor(module: str, tree: ast.Module, cls: ast.ClassDef, ours: bool) -> Signature | None:
    if not ours and (cls.decorator_list or cls.keywords):
        return None  # the constructor of a dataclass, say, has no source
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _signature(node, ours)
    for base in cls.bases:
        name = ast.unparse(base)
        inherited = read_signature(f"{_module_of(name, module, tree)}.{name}")
        if inherited is not None:
            return inherited
    return Signature({}) if ours else None


def _module_of(name: str, module: str, tree: ast.Module) -> str:
    """The module from which ``module`` imports ``name``, or itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return node.module or ""
    return module


def _signature(function: ast.FunctionDef, ours: bool) -> Signature | None:
    arguments = function.args
    if not ours and (arguments.kwarg or function.decorator_list):
        return None  # it may take more
    positional = arguments.args[1:] if function.name == "__init__" else arguments.args
    first_default = len(positional) - len(arguments.defaults)
    hint = _hint if ours else _hint_elsewhere
    found = {
        a.arg: Parameter(hint(a.annotation), i < first_default) for i, a in enumerate(positional)
    }
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[argument.arg] = Parameter(hint(argument.annotation), default is None)
    return Signature(found, tuple(_checks(function, found)) if ours else ())


def _hint_elsewhere(node: ast.expr | None) -> Any:
    return ELSEWHERE.get(ast.unparse(node), Any) if node is not None else Any


def _hint(node: ast.expr | None) -> Any:
    """The type that an annotation stands for."""
    if node is None:
        return Any
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Name):
        return PLAIN.get(node.id, Part)
    if isinstance(node, ast.BinOp):
        return Union[_hint(node.left), _hint(node.right)]  # noqa: UP007  # Literal has no |
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "list":
            return list[_hint(inner[0])]  # type: ignore[misc]
        if node.value.id == "dict":
            return dict[_hint(inner[0]), _hint(inner[1])]  # type: ignore[misc]
        if node.value.id == "Literal":
            return Literal[tuple(ast.literal_eval(value) for value in inner)]
    return Part


def _checks(function: ast.FunctionDef, parameters: dict[str, Parameter]) -> Iterator[Check]:
    """The checks with constant arguments, so that nothing has to be run."""
    for node in ast.walk(function):
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in CHECKS
        ):
            continue
        setting, value, *limits = node.args
        if isinstance(value, ast.Name) and value.id in parameters:
            try:
                yield Check(
                    node.func.id,
                    value.id,
                    ast.literal_eval(setting),
                    tuple(map(ast.literal_eval, limits)),
                )
            except ValueError:  # a name: the constructor will check it
                continue
