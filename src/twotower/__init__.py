"""Experiments with two-tower retrieval; ``from twotower import load`` gives notebooks a trained model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twotower.retriever import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch and the rest only when ``load`` is asked for."""
    if name != "load":
        raise AttributeError(f"module 'twotower' has no attribute {name!r}")
    from twotower.retriever import load

    return load
