"""Numbers of raw values by a hash: tables of a fixed size for values that never end."""

import hashlib
from typing import NamedTuple

import numpy as np
import polars as pl

from twotower.data.prepare.lists import places
from twotower.errors import UserError, check_number
from twotower.types import HASHES, FeatureKind

MAX_HASHES = 4  # a digest of 128 bits holds four numbers of 32 bits
KINDS = ("categorical", "multi")


class Hashes(NamedTuple):
    """Which features get their numbers by a hash instead of from a vocabulary.

    Attributes:
        buckets: by name, how many numbers there are, without 0; ``user_id`` and ``item_id`` are the
            raw ids.
        num: numbers of each value. Two values rarely share all of them.
    """

    buckets: dict[str, int] = {}
    num: int = 2

    def check(self) -> None:
        """Refuse values out of range."""
        check_number("data.hashes", self.num, 1, MAX_HASHES)
        for name, buckets in self.buckets.items():
            check_number(f"data.hashed.{name}", buckets, 2, 2**31 - 2)

    def check_names(self, *sides: dict[str, FeatureKind]) -> None:
        """Refuse names that are no feature, and features that are not labels.

        Args:
            sides: kinds of the features of users, items and requests, by name. A name that is a
                label on one side alone is hashed there alone.

        Raises:
            UserError: naming the feature and what there is.
        """
        kinds = {name: kind for side in sides for name, kind in side.items()}
        labels = [name for side in sides for name, kind in side.items() if kind in KINDS]
        for name in self.buckets:
            if name in kinds and name not in labels:
                raise UserError(f"data.hashed.{name}: {name} is {kinds[name]}, only labels can be")
            if name not in (*HASHES, *labels):
                known = ", ".join([*HASHES, *labels])
                raise UserError(
                    f"data.hashed.{name}: there is no such feature; choose from {known}"
                )

    def encoding(self, name: str) -> pl.DataFrame:
        """What :func:`hash_numbers` needs besides the values, as a table of one row."""
        return pl.DataFrame({"buckets": [self.buckets[name]], "hashes": [self.num]})


NO_HASHES = Hashes()


def hash_numbers(values: pl.Series, encoding: pl.DataFrame) -> np.ndarray:
    """``(num, hashes)`` numbers from 1 to ``buckets`` of each value; zeros for missing ones.

    Number ``i`` is 1 + (the ``i``-th group of eight hexadecimal digits of the MD5 of the value as
    text in UTF-8) modulo ``buckets``, which any language can compute.

    Source: several hashes of one table as in Svenstrup et al., "Hash Embeddings for Efficient Word
    Representations", NeurIPS 2017, with equal weights.

    Args:
        values: raw.
        encoding: see :meth:`Hashes.encoding`.
    """
    buckets, num = encoding.row(0)
    text = values.cast(pl.String)
    distinct = text.drop_nulls().unique(maintain_order=True)
    digests = b"".join(
        hashlib.md5(value.encode(), usedforsecurity=False).digest() for value in distinct
    )
    groups = np.frombuffer(digests, dtype=">u4").reshape(-1, MAX_HASHES)[:, :num]
    table = np.zeros((len(distinct) + 1, num), dtype=np.int32)
    table[1:] = 1 + groups % buckets
    row = text.replace_strict(distinct, np.arange(1, len(distinct) + 1), return_dtype=pl.Int32)
    found: np.ndarray = table[row.fill_null(0).to_numpy().astype(np.int32)]
    return found


def hashed_column(column: pl.Series, encoding: pl.DataFrame) -> np.ndarray:
    """``(num_rows, width)`` numbers of all values of each row, zeros after them.

    Args:
        column: a value or a list of values for each row.
        encoding: see :meth:`Hashes.encoding`.
    """
    if not isinstance(column.dtype, pl.List):
        return hash_numbers(column, encoding)
    length = column.list.len().fill_null(0).to_numpy()
    numbers = hash_numbers(column.filter(column.list.len() > 0).explode(), encoding)
    width = max(1, int(length.max(initial=1)))
    table = np.zeros((len(column), width, numbers.shape[1]), dtype=np.int32)
    table[places(length)] = numbers
    return table.reshape(len(column), width * numbers.shape[1])
