"""Pairs of variants that differ in one part: a loss weight, the model, or any other setting."""

from itertools import combinations
from typing import Any, NamedTuple

from twotower.report.variants import Variant, complexity, greek
from twotower.wording import clip

MODEL = "model._target_"
VECTORS = {"two_tower", "dat"}  # these models differ by the augmented vectors
ORDER = ["λ3", "λ1 = λ2", "λ1", "λ2", "augmented vectors", "model"]  # then the others by name


class Pair(NamedTuple):
    """Two variants that are equal in all else.

    Attributes:
        part: what differs, such as ``λ3``, ``model`` or the name of a setting.
        change: from ``start`` to ``end``, such as ``0 → 1``.
        start: the variant with the smaller value, or the simpler one.
        end: the other variant.
    """

    part: str
    change: str
    start: Variant
    end: Variant


def find_pairs(variants: list[Variant]) -> list[Pair]:
    """All pairs, by part.

    Where a setting has several values, each is paired with the first of them: λ3 = 0, 0.1 and 1
    give 0 → 0.1 and 0 → 1.
    """
    found: dict[tuple[str, str], Pair] = {}
    for one, other in combinations(variants, 2):
        keys = _differing(one, other)
        part = _part(keys, one, other)
        if part is None:
            continue
        key = MODEL if MODEL in keys else min(keys)
        start, end = sorted((one, other), key=lambda variant: _rank(variant, key))
        known = found.get((part, end.label))
        if known is None or _rank(start, key) < _rank(known.start, key):
            change = f"{_shown(start, key)} → {_shown(end, key)}"
            found[part, end.label] = Pair(part, change, start, end)
    order = [*ORDER, *sorted({part for part, _ in found} - set(ORDER))]
    return sorted(found.values(), key=lambda pair: order.index(pair.part))


def _differing(one: Variant, other: Variant) -> set[str]:
    """Names of the settings in which two variants differ."""
    return {key for key, _ in one.settings.items() ^ other.settings.items()}


def _part(keys: set[str], one: Variant, other: Variant) -> str | None:
    """What differs, None if it is more than one part."""
    if MODEL in keys:
        own = keys - {MODEL}
        is_own = all((key in one.settings) != (key in other.settings) for key in own)
        if not is_own or not all(key.startswith("model.") for key in own):
            return None
        return "augmented vectors" if {model_of(one), model_of(other)} == VECTORS else "model"
    if keys == {"loss.lambda1", "loss.lambda2"}:  # the two mimic losses
        equal = all(len({own.settings.get(key) for key in keys}) == 1 for own in (one, other))
        return "λ1 = λ2" if equal else None
    if len(keys) != 1:
        return None
    (key,) = keys
    name = greek(key.rpartition(".")[2])
    return name if name.startswith("λ") else clip(key)


def model_of(variant: Variant) -> str:
    """Name of the model."""
    return variant.runs[0].record.model


def _shown(variant: Variant, key: str) -> str:
    return model_of(variant) if key == MODEL else shown(variant.settings.get(key, "unset"))


def shown(value: object) -> str:
    """The value of a setting: ``0.5``, ``true``."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else clip(str(value))


def _rank(variant: Variant, key: str) -> tuple[Any, ...]:
    """Orders the values of a setting: missing, numbers from the smallest, then others."""
    value = variant.settings.get(key)
    if isinstance(value, (int, float)):
        return 1, value
    return 0 if value is None else 2, *complexity(variant)
