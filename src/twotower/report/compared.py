"""Which runs a comparison is of, where variants were trained with different seeds."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

LEAST = 2  # common seeds that a paired comparison takes


class Compared(NamedTuple):
    """The runs of one comparison: the difference, its intervals and its p values are all of these.

    Attributes:
        variant: seeds of the variant's runs.
        baseline: seeds of the baseline's runs.
        note: says so where it is not all runs of both with the same seeds; else empty.
    """

    variant: tuple[int, ...]
    baseline: tuple[int, ...]
    note: str

    def __str__(self) -> str:
        """The seeds as a table has them."""
        seeds, others = (" ".join(map(str, seeds)) for seeds in self[:2])
        return seeds if seeds == others else f"{seeds} against {others}"


def compared(variant: Collection[int], baseline: Collection[int]) -> Compared:
    """The seeds that both have; with fewer than two of these, all runs of both, unpaired."""
    own, start = tuple(sorted(variant)), tuple(sorted(baseline))
    common = tuple(seed for seed in own if seed in start)
    if own == start:
        return Compared(own, start, "")
    if len(common) >= LEAST:
        return Compared(common, common, f"over the {len(common)} seeds that both have")
    return Compared(own, start, "all runs of both, unpaired")


class Shared(NamedTuple):
    """The runs that a plot of several variants shows of each.

    Attributes:
        seeds: those that all have; None: each variant's own.
        note: says so where they differ; else empty.
    """

    seeds: frozenset[int] | None
    note: str

    def of(self, seeds: Iterable[int]) -> list[int]:
        """Which of a variant's seeds are shown."""
        return [seed for seed in seeds if self.seeds is None or seed in self.seeds]


def shared(seeds: Iterable[Iterable[int]]) -> Shared:
    """The same rule for many variants at once."""
    sets = [frozenset(own) for own in seeds]
    common = frozenset.intersection(*sets) if sets else frozenset()
    if all(own == common for own in sets):
        return Shared(None, "")
    if len(common) >= LEAST:
        return Shared(common, f"over the {len(common)} seeds that all have")
    return Shared(None, "the variants have different seeds")
