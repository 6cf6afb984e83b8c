"""The cache of prepared data: one folder per set of options, whole or absent, checked and memory-mapped when read."""

import hashlib
import json
import shutil
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
from twotower.files import open_ordinary, read_json, whole_folder

VERSION = 5  # raise it when files are added or change their meaning
ENCODING = "encoding."  # begins the names of files that say how a feature was encoded
UNSEEN = ("remarks", "without_interactions")  # of meta.json: for people alone
BLOCK = 1 << 24
MAX_META = 256 << 20  # bytes of meta.json
SPLIT = (
    "interactions.",
    "offset.",
    "position.",
    "targets.",
)  # the arrays that say what trains and what is tested


def cache_folder(cache_dir: Path, name: str, options: dict[str, Any]) -> Path:
    """``<cache_dir>/<name>-<hash of the options>``."""
    key = json.dumps({"version": VERSION, **options}, sort_keys=True, default=str)
    return cache_dir / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


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
    """For code that writes below ``cache_dir``.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{cache_dir} cannot be written ({reason}): free space there, or set paths.cache_dir to another"
        ) from error


def save(folder: Path, prepared: Prepared, extra: dict[str, Any]) -> None:
    """Write beside ``folder``, then put it in its place: a killed process leaves the old one, or the new one.

    The caller holds the lock of ``folder``.

    Raises:
        UserError: if the disk has too little room, or nothing can be written there.
    """
    with writable(folder.parent), whole_folder(folder) as partial:
        _check_room(folder.parent, prepared)
        checksums = _write(partial, prepared)
        meta = {
            **prepared.meta,
            **extra,
            "checksums": checksums,
            "fingerprint": _fingerprint(prepared, checksums),
        }
        (partial / "meta.json").write_text(json.dumps(meta, indent=1))


def _check_room(cache_dir: Path, prepared: Prepared) -> None:
    arrays = sum(array.nbytes for array in prepared.arrays.values())
    needed = arrays + sum(table.estimated_size() for table in prepared.tables.values())
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        raise UserError(
            f"the prepared data take about {needed / 2**20:,.1f} MiB and {cache_dir} has {free / 2**20:,.1f} MiB free: "
            "free space there, or set paths.cache_dir to another"
        )


def _write(partial: Path, prepared: Prepared) -> dict[str, int]:
    """Arrays and tables as files; the checksum of each."""
    for name, array in prepared.arrays.items():
        np.save(
            partial / f"{name.replace('/', '.')}.npy",
            np.ascontiguousarray(array),
            allow_pickle=False,
        )
    for side, table in prepared.tables.items():
        table.write_parquet(partial / f"{side}.parquet")
    for name, table in prepared.encodings.items():
        table.write_parquet(partial / f"{ENCODING}{name.replace('/', '.')}.parquet")
    return {path.name: checksum(path) for path in sorted(partial.iterdir())}


def load_meta(folder: Path) -> dict[str, Any]:
    """What is known of the prepared data, without reading them.

    Raises:
        DamagedError: if it cannot be read.
    """
    try:
        meta = read_json(folder / "meta.json", MAX_META)
        return {**meta, "checksums": dict(meta["checksums"]), "sources": dict(meta["sources"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(folder, error) from error


def is_current(folder: Path, sources: Callable[[], dict[str, list[int]]]) -> bool:
    """Is there a cache, made from the raw files as they are now? Without raw files the cache is good.

    Args:
        folder: of the cache.
        sources: gives size and time of each raw file that is there.

    Raises:
        DamagedError: if there is one that cannot be read.
    """
    return folder.exists() and (not (found := sources()) or load_meta(folder)["sources"] == found)


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
            if checksum(path) != expected:
                raise ValueError(f"{name} has changed")
            if path.suffix == ".npy":
                # not np.load, which takes archives and pickled objects for arrays, too
                arrays[path.stem.replace(".", "/", 1)] = np.lib.format.open_memmap(path, mode="c")
            elif name.startswith(ENCODING):
                encodings[path.stem.removeprefix(ENCODING).replace(".", "/", 1)] = pl.read_parquet(
                    path
                )
            else:
                tables[path.stem] = pl.read_parquet(path)
    except (OSError, ValueError, tokenize.TokenError, pl.exceptions.PolarsError) as error:
        raise DamagedError(folder, error) from error
    return Prepared(arrays, tables, meta, encodings)


def checksum(path: Path) -> int:
    """CRC-32 of an ordinary file, read in blocks."""
    found = 0
    with open_ordinary(path) as file:
        while block := file.read(BLOCK):
            found = zlib.crc32(block, found)
    return found


def _fingerprint(prepared: Prepared, checksums: dict[str, int]) -> str:
    """The same for the same data, whoever wrote them: Parquet files differ between versions, so their ids are taken.

    What models do not see, remarks and counts of what was left out, is not part of it.
    """
    arrays = {name: checksum for name, checksum in checksums.items() if name.endswith(".npy")}
    ids = _id_checksums(prepared.tables)
    meta = {name: value for name, value in prepared.meta.items() if name not in UNSEEN}
    return hashlib.sha256(json.dumps([arrays, ids, meta], sort_keys=True).encode()).hexdigest()[:16]


def split_fingerprint(meta: dict[str, Any], ids: dict[str, pl.DataFrame]) -> str:
    """The same where the same users' same interactions train, validate and test, whatever is known of users and items."""
    split = {name: value for name, value in meta["checksums"].items() if name.startswith(SPLIT)}
    return hashlib.sha256(
        json.dumps([split, _id_checksums(ids)], sort_keys=True).encode()
    ).hexdigest()[:16]


def _id_checksums(tables: dict[str, pl.DataFrame]) -> list[int]:
    return [zlib.crc32(tables[side].select(side).write_csv().encode()) for side in ("item", "user")]
