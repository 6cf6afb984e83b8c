"""The cache of prepared data: one folder per set of options, memory-mapped when read."""

import json
import tokenize
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from twotower.data.prepare.prepare import Prepared
from twotower.errors import UserError
from twotower.files import crc32, read_json, short_hash, whole_folder

VERSION = 5  # raise it when files are added or change their meaning
ENCODING = "encoding."  # prefix of the files that hold encodings of features
UNSEEN = ("remarks", "without_interactions")  # parts of meta.json that models do not use
MAX_META = 256 << 20  # bytes of meta.json
SPLIT = ("interactions.", "offset.", "position.", "targets.")  # the arrays that define the split


def cache_folder(cache_dir: Path, name: str, options: dict[str, Any]) -> Path:
    """``<cache_dir>/<name>-<hash of the options>``."""
    key = json.dumps({"version": VERSION, **options}, sort_keys=True, default=str)
    return cache_dir / f"{name}-{short_hash(key, 12)}"


class DamagedError(UserError):
    """Prepared data that cannot be read, or differ from what was written.

    Args:
        folder: of the data.
        error: what is wrong.
    """

    def __init__(self, folder: Path, error: Exception) -> None:
        self.what = f"the prepared data in {folder} are damaged ({error})"
        super().__init__(f"{self.what}: delete that folder and run again")


@contextmanager
def writable(cache_dir: Path) -> Iterator[None]:
    """Make ``cache_dir``, and turn errors of writing below it into one line.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{cache_dir} cannot be written ({reason}): free space there, or set paths.cache_dir "
            "to another"
        ) from error


def save(folder: Path, prepared: Prepared, extra: dict[str, Any]) -> None:
    """Write the data, whole or not at all. The caller holds the lock of ``folder``.

    Args:
        folder: of the data.
        prepared: the data.
        extra: more values for ``meta.json``.

    Raises:
        UserError: if the disk is full, or the folder cannot be written.
    """
    with writable(folder.parent), whole_folder(folder) as partial:
        for name, array in prepared.arrays.items():
            file = partial / f"{name.replace('/', '.')}.npy"
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        for side, table in prepared.tables.items():
            table.write_parquet(partial / f"{side}.parquet")
        for name, table in prepared.encodings.items():
            table.write_parquet(partial / f"{ENCODING}{name.replace('/', '.')}.parquet")
        checksums = {path.name: crc32(path) for path in sorted(partial.iterdir())}
        fingerprint = _fingerprint(prepared, checksums)
        meta = {**prepared.meta, **extra, "checksums": checksums, "fingerprint": fingerprint}
        (partial / "meta.json").write_text(json.dumps(meta, indent=1))


def load_meta(folder: Path) -> dict[str, Any]:
    """Read ``meta.json`` of the prepared data.

    Raises:
        DamagedError: if it cannot be read.
    """
    try:
        meta = read_json(folder / "meta.json", MAX_META)
        return {**meta, "checksums": dict(meta["checksums"]), "sources": dict(meta["sources"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(folder, error) from error


def is_current(folder: Path, sources: Callable[[], dict[str, list[int]]]) -> bool:
    """Whether the cache exists and is made from the raw files as they are now.

    Without raw files every cache is current.

    Args:
        folder: of the cache.
        sources: gives size and time of each raw file that is there.

    Raises:
        DamagedError: if its ``meta.json`` cannot be read.
    """
    return folder.exists() and (not (now := sources()) or load_meta(folder)["sources"] == now)


def load(folder: Path) -> Prepared:
    """Memory-map what :func:`save` wrote.

    Raises:
        DamagedError: if a file is missing or differs from what was written.
    """
    meta = load_meta(folder)
    arrays: dict[str, np.ndarray] = {}
    tables, encodings = {}, {}
    try:
        for name, expected in meta["checksums"].items():
            path = folder / name
            if crc32(path) != expected:
                raise ValueError(f"{name} has changed")
            if path.suffix == ".npy":
                # np.load would also read archives and pickled objects
                arrays[path.stem.replace(".", "/", 1)] = np.lib.format.open_memmap(path, mode="c")
            elif name.startswith(ENCODING):
                feature = path.stem.removeprefix(ENCODING).replace(".", "/", 1)
                encodings[feature] = pl.read_parquet(path)
            else:
                tables[path.stem] = pl.read_parquet(path)
    except (OSError, ValueError, tokenize.TokenError, pl.exceptions.PolarsError) as error:
        raise DamagedError(folder, error) from error
    return Prepared(arrays, tables, meta, encodings)


def _fingerprint(prepared: Prepared, checksums: dict[str, int]) -> str:
    """A hash of the data's content, without remarks and counts that models do not use.

    Of tables only the ids count: Parquet files of the same table differ between versions.
    """
    arrays = {name: value for name, value in checksums.items() if name.endswith(".npy")}
    meta = {name: value for name, value in prepared.meta.items() if name not in UNSEEN}
    content = [arrays, _id_checksums(prepared.tables), meta]
    return short_hash(json.dumps(content, sort_keys=True), 16)


def split_fingerprint(meta: dict[str, Any], ids: dict[str, pl.DataFrame]) -> str:
    """A hash of which interactions train, validate and test, whatever their users' features."""
    split = {name: value for name, value in meta["checksums"].items() if name.startswith(SPLIT)}
    return short_hash(json.dumps([split, _id_checksums(ids)], sort_keys=True), 16)


def _id_checksums(tables: dict[str, pl.DataFrame]) -> list[int]:
    return [zlib.crc32(tables[side].select(side).write_csv().encode()) for side in ("item", "user")]
