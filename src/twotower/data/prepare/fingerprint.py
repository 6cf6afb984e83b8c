"""Hashes that tell whether two preparations gave the same data, or the same split."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import polars as pl

from twotower.data.prepare.prepare import Prepared
from twotower.files import short_hash

UNSEEN = ("remarks", "without_interactions")  # parts of meta.json that models do not use
SPLIT = ("interactions.", "offset.", "position.", "targets.")  # the arrays that define the split


def data_fingerprint(prepared: Prepared, checksums: dict[str, int]) -> str:
    """A hash of the data's content, without remarks and counts that models do not use.

    Of tables only the ids count: Parquet files of the same table differ between versions.
    """
    arrays = {name: value for name, value in checksums.items() if name.endswith(".npy")}
    meta = {name: value for name, value in prepared.meta.items() if name not in UNSEEN}
    content = [arrays, _id_checksums(prepared.tables), meta]
    return short_hash(json.dumps(content, sort_keys=True), 16)


def split_fingerprint(meta: dict[str, Any], ids: Mapping[str, pl.DataFrame]) -> str:
    """A hash of which interactions train, validate and test, whatever their users' features."""
    split = {name: value for name, value in meta["checksums"].items() if name.startswith(SPLIT)}
    return short_hash(json.dumps([split, _id_checksums(ids)], sort_keys=True), 16)


def _id_checksums(tables: Mapping[str, pl.DataFrame]) -> list[int]:
    return [zlib.crc32(tables[side].select(side).write_csv().encode()) for side in ("item", "user")]
