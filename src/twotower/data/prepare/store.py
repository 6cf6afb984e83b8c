"""The cache of prepared data: prepared once for all processes, memory-mapped when read.

There is a folder for each set of options. Data are prepared again when their raw files change.
"""

import json
import os
import socket
import time
import tokenize
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from twotower import locks
from twotower.data.blocks import full_disk
from twotower.data.frames import Frames, Reader, WithoutFiles
from twotower.data.prepare.coding import IN_MEMORY, Engine
from twotower.data.prepare.engine import AUTO, Choice, remove_workplace
from twotower.data.prepare.fingerprint import data_fingerprint
from twotower.data.prepare.on_disk import OnDisk
from twotower.data.prepare.options import Options
from twotower.data.prepare.prepare import Prepared, prepare
from twotower.data.prepare.stored_tables import DamagedError, StoredTables
from twotower.data.progress import Stages, waiting_lock
from twotower.files import crc32, leftovers, read_json, recover_folder, short_hash, whole_folder
from twotower.wording import PlainConsole, printable

STAGES = ("reading", "checking", "ids", "filters", "split", "features", "writing")
VERSION = 5  # raise it when files are added or change their meaning
ENCODING = "encoding."  # prefix of the files that hold encodings of features
MAX_META = 256 << 20  # bytes of meta.json


class Preparation:
    """A reader's data with the decisions of preparation, and the folder in the cache for them.

    Args:
        reader: parses the official files.
        options: decisions.
        data_dir: raw files.
        cache_dir: prepared data.
        engine: what prepares; the data are the same.
    """

    def __init__(
        self,
        reader: Reader,
        options: Options,
        data_dir: Path,
        cache_dir: Path,
        engine: Choice = AUTO,
    ) -> None:
        engine.check()
        self.engine = engine
        self.reader = reader
        self.options = options
        self.data_dir = data_dir
        self.cache_dir = cache_dir

    @property
    def folder(self) -> Path:
        """The folder of the prepared data with these options, whether it exists or not."""
        options = {**self.options.plain(), **self.reader.options()}
        return cache_folder(self.cache_dir, self.reader.name, options)

    def load(self, force: bool = False) -> Prepared:
        """Load the prepared data.

        They are prepared first where they are missing or damaged or the raw files have changed. One
        process prepares, the others wait for it.

        Args:
            force: prepare anew even if the data are there.

        Raises:
            UserError: for missing or malformed raw files, and a damaged cache without raw files.
        """
        if not force and (prepared := self._cached(warn=False)):
            self._tidy()
            return prepared
        with self.alone():
            # another process may have prepared them while this one waited for the lock
            if not force and (prepared := self._cached(warn=True)):
                return prepared
            self._prepare()
            return load_folder(self.folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the folder, in which leftovers of a killed process are repaired."""
        with ExitStack() as held:
            with writable(self.cache_dir):
                message = f"another process is preparing {self.reader.name}: waiting for it"
                held.enter_context(waiting_lock(self._lock, message))
                recover_folder(self.folder)
                remove_workplace(self._work)
            yield

    @property
    def _lock(self) -> Path:
        return Path(f"{self.folder}.lock")

    @property
    def _work(self) -> Path:
        if self.engine.folder is None:
            return self.folder.with_name(f".{self.folder.name}.work")
        # the lock is in the cache: another cache may use the same folder
        cache = short_hash(f"{socket.gethostname()} {self.cache_dir.absolute()}")
        return Path(self.engine.folder) / f".{self.folder.name}-{cache}.work"

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it replaced good data."""
        if leftovers(self.folder) or self._work.exists():
            # the cache may be read-only for us
            with suppress(OSError), locks.if_free(self._lock) as is_free:
                if is_free:
                    recover_folder(self.folder)
                    remove_workplace(self._work)

    def _cached(self, warn: bool) -> Prepared | None:
        """The data in the cache; None if they are missing, damaged or older than the raw files.

        Raises:
            DamagedError: if they are damaged and there is nothing to prepare them from.
        """
        try:
            if is_current(self.folder, self._sources):
                return load_folder(self.folder)
        except DamagedError as damage:
            if not self._sources() and not isinstance(self.reader, WithoutFiles):
                raise
            if warn:
                _print(f"{damage.what}: they are prepared again", soft_wrap=True)
        return None

    def _prepare(self) -> None:
        self.reader.fetch(self.data_dir)
        started = time.perf_counter()
        sources = self._sources()
        with ExitStack() as stack:
            stage = stack.enter_context(Stages(self.reader.name, STAGES))
            stage("reading")
            frames, engine = self._read(stack)
            prepared = prepare(frames, self.options, stage, engine)
            stage("writing")
            seconds = time.perf_counter() - started
            about = {"sources": sources, "seconds": seconds, "stages": dict(stage.seconds)}
            save(self.folder, prepared, about)
        print_remarks(prepared.meta)

    def _read(self, stack: ExitStack) -> tuple[Frames, Engine]:
        """The reader's frames, and what prepares them; ``stack`` removes its files."""
        name, line = self.engine.made(self.reader.sources(self.data_dir))
        if line:
            _print(line, soft_wrap=True)
        if name == "polars":
            return self.reader.read(self.data_dir), IN_MEMORY
        setting = "data.engine_folder" if self.engine.folder else "paths.cache_dir"
        with writable(self._work.parent, setting):
            self._work.mkdir()
        stack.callback(remove_workplace, self._work)
        engine = OnDisk(self._work, self.engine.limit_gb())
        return engine.read(self.reader, self.data_dir), engine

    def _sources(self) -> dict[str, list[int]]:
        """Size and time of each raw file that is there."""
        status = {
            os.path.relpath(path, self.data_dir): path.stat()
            for path in self.reader.sources(self.data_dir)
            if path.exists()
        }
        return {name: [file.st_size, file.st_mtime_ns] for name, file in status.items()}


def print_remarks(meta: dict[str, Any]) -> None:
    """Print what the reader inferred and left out."""
    for remark in meta["remarks"]:
        _print(remark)


def _print(text: str, soft_wrap: bool = False) -> None:
    """Print on standard error; a remark may have several lines."""
    lines = "\n".join(map(printable, text.split("\n")))
    PlainConsole(stderr=True).print(lines, style="yellow", soft_wrap=soft_wrap)


def cache_folder(cache_dir: Path, name: str, options: dict[str, Any]) -> Path:
    """``<cache_dir>/<name>-<hash of the options>``."""
    key = json.dumps({"version": VERSION, **options}, sort_keys=True, default=str)
    return cache_dir / f"{name}-{short_hash(key, 12)}"


@contextmanager
def writable(cache_dir: Path, setting: str = "paths.cache_dir") -> Iterator[None]:
    """Make a folder that ``setting`` names, and turn errors of writing below it into one line.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise full_disk(cache_dir, error, setting) from error


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
        fingerprint = data_fingerprint(prepared, checksums)
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


def load_folder(folder: Path) -> Prepared:
    """Memory-map what :func:`save` wrote; tables of raw ids are read when they are used.

    Raises:
        DamagedError: if a file is missing or differs from what was written.
    """
    meta = load_meta(folder)
    arrays: dict[str, np.ndarray] = {}
    tables: dict[Path, int] = {}
    encodings = {}
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
                encodings[feature] = pl.read_parquet(path, glob=False)
            else:
                tables[path] = expected
    except (OSError, ValueError, tokenize.TokenError, pl.exceptions.PolarsError) as error:
        raise DamagedError(folder, error) from error
    return Prepared(arrays, StoredTables(tables), meta, encodings)
