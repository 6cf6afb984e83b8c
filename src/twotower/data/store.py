"""The cache of prepared data: one folder per set of options, whole or absent, checked and memory-mapped when read."""

import hashlib
import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from twotower.data.prepare import Prepared
from twotower.types import UserError

VERSION = 1  # raise it when the arrays change their meaning


def cache_folder(cache_dir: Path, name: str, options: dict[str, Any]) -> Path:
    """``<cache_dir>/<name>-<hash of the options>``."""
    key = json.dumps({"version": VERSION, **options}, sort_keys=True, default=str)
    return cache_dir / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def save(folder: Path, prepared: Prepared, extra: dict[str, Any]) -> None:
    """Write beside ``folder``, then rename: a killed process leaves nothing that looks whole."""
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        checksums = {}
        for name, array in sorted(prepared.arrays.items()):
            path = partial / f"{name.replace('/', '.')}.npy"
            np.save(path, np.ascontiguousarray(_plain(array)), allow_pickle=False)
            checksums[name] = zlib.crc32(path.read_bytes())
        fingerprint = hashlib.sha256(json.dumps([checksums, prepared.meta], sort_keys=True).encode()).hexdigest()[:16]
        meta = {**prepared.meta, **extra, "checksums": checksums, "fingerprint": fingerprint}
        (partial / "meta.json").write_text(json.dumps(meta, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load(folder: Path) -> Prepared:
    """Memory-map what :func:`save` wrote.

    Raises:
        UserError: if a file is missing or differs from what was written.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = {}
        for name, checksum in meta["checksums"].items():
            path = folder / f"{name.replace('/', '.')}.npy"
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            if zlib.crc32(path.read_bytes()) != checksum:
                raise ValueError(f"{path.name} has changed")
            arrays[name] = array
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the prepared data in {folder} are damaged ({error}): delete that folder and run again") from error
    return Prepared(arrays, meta)


def _plain(array: np.ndarray) -> np.ndarray:
    """Strings come from Polars as objects, which would be pickled."""
    return array.astype(str) if array.dtype == object else array
