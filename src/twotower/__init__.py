"""Experiments with two-tower retrieval; ``from twotower import load`` loads a trained model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twotower.serve.load import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import ``load``, or a module by an old name, at its first use: torch takes seconds."""
    if name == "load":
        from twotower.serve.load import load

        return load
    from twotower.run.moved import find_module

    return find_module(name)
