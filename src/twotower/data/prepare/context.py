"""Context of a request: features of an interaction that are known before its item is chosen."""

from typing import NamedTuple

import numpy as np
import polars as pl

from twotower.data.blocks import Column
from twotower.data.frames import Frames
from twotower.data.prepare.features import encode
from twotower.data.prepare.hashing import Hashes
from twotower.data.splits import UNITS_PER_SECOND
from twotower.errors import UserError
from twotower.types import Feature, FeatureKind

PREFIX = "context."  # of the columns of interactions
CLOCK = ("hour", "weekday", "month")


class Context(NamedTuple):
    """Encoded features of interactions.

    Attributes:
        features: kind and number of values of each.
        kinds: before they became numbers, by name.
        columns: ``context.<name>``, one row per interaction.
        encodings: ``user/<name>``, see :class:`~twotower.data.prepare.features.Encoded`.
    """

    features: list[Feature]
    kinds: dict[str, FeatureKind]
    columns: dict[str, np.ndarray]
    encodings: dict[str, pl.DataFrame]


def encode_context(
    frames: Frames,
    coded: dict[str, Column],
    in_train: np.ndarray,
    clock: tuple[str, ...],
    num_buckets: int | None,
    hashes: Hashes,
) -> Context:
    """Number the values of the reader's context columns, and those of the clock.

    Args:
        frames: a reader's.
        coded: the kept interactions.
        in_train: ``(num_interactions,)`` mask of those that vocabularies come from.
        clock: parts of the time, of ``CLOCK``, in UTC.
        num_buckets: see :func:`~twotower.data.prepare.features.encode`, like the next.
        hashes: of features whose values never end.

    Raises:
        UserError: for names that users have as features, and for a clock without times.
    """
    kinds: dict[str, FeatureKind] = dict.fromkeys(clock, "categorical")
    kinds |= frames.context_features
    if not kinds:
        return Context([], {}, {}, {})
    for name in kinds:
        if name in {*frames.user_features, "user_id", "history"}:
            raise UserError(f"context {name}: users have a feature of this name, too: rename one")
    given = [pl.Series(name, coded[f"{PREFIX}{name}"]) for name in frames.context_features]
    table = pl.DataFrame(given + _parts(pl.Series(coded["time"]), frames.time_unit, clock))
    order = np.argsort(~in_train, kind="stable")  # the training rows first
    back = np.argsort(order, kind="stable")
    encoded = encode(int(in_train.sum()), table[order], "user", kinds, num_buckets, hashes)
    columns = {f"{PREFIX}{name}": encoded.arrays[f"user/{name}"][back] for name in kinds}
    return Context(encoded.features[1:], kinds, columns, encoded.encodings)


def _parts(moments: pl.Series, unit: str, clock: tuple[str, ...]) -> list[pl.Series]:
    if not clock:
        return []
    if unit not in UNITS_PER_SECOND:
        raise UserError(
            "data.clock_context needs times of a clock, and these data have none: set it to null"
        )
    seconds = (moments // UNITS_PER_SECOND[unit]).cast(pl.Int64)
    when = pl.select(pl.from_epoch(pl.lit(seconds), "s")).to_series()
    return [getattr(when.dt, name)().alias(name) for name in clock]
