"""What each part does: the pairs that differ in it, one by one and together."""

from itertools import groupby
from typing import NamedTuple

from twotower.report.comparison import Comparison, Options, compare
from twotower.report.parts import Pair, find_pairs
from twotower.report.variants import Variant

Row = tuple[Pair, Comparison]


class Effect(NamedTuple):
    """What a part does, in the mean over the other settings that it was measured with.

    Attributes:
        pairs: with the same change and the same seeds.
        comparison: of their ends together with their starts together; p is corrected over the
            changes of the part.
        num_changes: to different values, such as 2 for 0 → 0.1 and 0 → 1.
    """

    pairs: list[Pair]
    comparison: Comparison
    num_changes: int


def effects_of(variants: list[Variant], options: Options) -> tuple[list[Row], list[Effect]]:
    """Compare the pairs, one by one and together."""
    rows: list[Row] = []
    effects: list[Effect] = []
    for _, group in groupby(find_pairs(variants), key=lambda pair: pair.part):
        pairs = list(group)
        compared = compare([(pair.end, pair.start) for pair in pairs], options)
        found = list(zip(pairs, compared, strict=True))
        rows += sorted(found, key=lambda row: _trust(row[1]), reverse=True)
        effects.append(_effect(pairs, options))
    return rows, effects


def _effect(pairs: list[Pair], options: Options) -> Effect:
    """The effect of a part over the pairs with the same change; of several changes the best."""
    pools: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: -_num_seeds(pair)):
        pool = pools.setdefault(pair.change, [])
        if not pool or _seeds(pair) == _seeds(pool[0]):  # else the other settings would differ too
            pool.append(pair)
    together = [
        (_together([pair.end for pair in pool]), _together([pair.start for pair in pool]))
        for pool in pools.values()
    ]
    compared = compare(together, options)
    best = max(zip(pools.values(), compared, strict=True), key=lambda own: _trust(own[1]))
    return Effect(*best, num_changes=len(pools))


def _together(variants: list[Variant]) -> Variant:
    """Variants with the same seeds as one."""
    return Variant(variants[0].label, tuple(run for own in variants for run in own.runs))


def _seeds(pair: Pair) -> tuple[list[int], list[int]]:
    return pair.start.seeds, pair.end.seeds


def _num_seeds(pair: Pair) -> int:
    return min(map(len, _seeds(pair)))


def _trust(comparison: Comparison) -> tuple[int, float]:
    """Number of seeds on the smaller side, then the gain: one lucky run is no evidence."""
    return min(len(comparison.one.seeds), len(comparison.other.seeds)), comparison.value
