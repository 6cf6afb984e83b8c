"""What has moved or is gone: class names and settings of older checkpoints and records."""

import importlib
from types import ModuleType
from typing import Any

MOVED = {  # old module: new module
    "twotower.callbacks": "twotower.training.callbacks",
    "twotower.data.amazon": "twotower.data.readers.amazon",
    "twotower.data.globo": "twotower.data.readers.globo",
    "twotower.data.lightgcn": "twotower.data.readers.lightgcn",
    "twotower.data.movielens": "twotower.data.readers.movielens",
    "twotower.data.s3rec": "twotower.data.readers.s3rec",
    "twotower.data.sasrec": "twotower.data.readers.sasrec",
    "twotower.data.synthetic": "twotower.data.readers.synthetic",
    "twotower.data.table": "twotower.data.readers.table",
    "twotower.data.taobao": "twotower.data.readers.taobao",
    "twotower.diagnostics.callback": "twotower.training.diagnostics.callback",
    "twotower.loggers": "twotower.training.loggers.csv_logger",
    "twotower.optimizers": "twotower.optimizers.row_sparse",
    "twotower.retriever": "twotower.serve.retriever",
    "twotower.wandb_logger": "twotower.training.loggers.wandb_logger",
}

GONE = {"speed": ("cuda_graphs",)}  # callback: settings that it had


def renamed(node: Any) -> Any:
    """Replace old class names in a config of plain values, and leave out settings that are gone.

    Args:
        node: nested as in a config (``_target_`` keys), or flat (``model._target_``).
    """
    if isinstance(node, list):
        return [renamed(value) for value in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        is_target = str(key).split(".")[-1] == "_target_" and isinstance(value, str)
        if isinstance(value, dict):
            value = {name: own for name, own in value.items() if name not in GONE.get(key, ())}
        found[key] = new_name(value) if is_target else renamed(value)
    return found


def new_name(target: str) -> str:
    """The name that a class has today.

    Args:
        target: dotted name of a class.
    """
    module, _, name = target.rpartition(".")
    return f"{MOVED[module]}.{name}" if module in MOVED else target


def find_module(name: str) -> ModuleType:
    """Import a module of the package by its old name, such as ``callbacks``.

    Raises:
        AttributeError: if no module had this name.
    """
    if f"twotower.{name}" not in MOVED:
        raise AttributeError(f"module 'twotower' has no attribute {name!r}")
    return importlib.import_module(MOVED[f"twotower.{name}"])
