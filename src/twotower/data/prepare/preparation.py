"""Prepares a data set once for all processes, and again when its raw files change."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from twotower import locks
from twotower.data.frames import Reader, WithoutFiles
from twotower.data.prepare import store
from twotower.data.prepare.prepare import Options, Prepared, prepare
from twotower.data.progress import Stages, waiting_lock
from twotower.files import leftovers, recover_folder
from twotower.wording import PlainConsole, printable

STAGES = ("reading", "checking", "ids", "filters", "split", "features", "writing")


class Preparation:
    """A reader's data with the decisions of preparation, and the folder in the cache for them.

    Args:
        reader: parses the official files.
        options: decisions.
        data_dir: raw files.
        cache_dir: prepared data.
    """

    def __init__(self, reader: Reader, options: Options, data_dir: Path, cache_dir: Path) -> None:
        self.reader = reader
        self.options = options
        self.data_dir = data_dir
        self.cache_dir = cache_dir

    @property
    def folder(self) -> Path:
        """The folder of the prepared data with these options, whether it exists or not."""
        options = {**self.options.plain(), **self.reader.options()}
        return store.cache_folder(self.cache_dir, self.reader.name, options)

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
            return store.load(self.folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the folder, in which leftovers of a killed process are repaired."""
        with ExitStack() as held:
            with store.writable(self.cache_dir):
                message = f"another process is preparing {self.reader.name}: waiting for it"
                held.enter_context(waiting_lock(self._lock, message))
                recover_folder(self.folder)
            yield

    @property
    def _lock(self) -> Path:
        return Path(f"{self.folder}.lock")

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it replaced good data."""
        if leftovers(self.folder):
            # the cache may be read-only for us
            with suppress(OSError), locks.if_free(self._lock) as is_free:
                if is_free:
                    recover_folder(self.folder)

    def _cached(self, warn: bool) -> Prepared | None:
        """The data in the cache; None if they are missing, damaged or older than the raw files.

        Raises:
            DamagedError: if they are damaged and there is nothing to prepare them from.
        """
        try:
            if store.is_current(self.folder, self._sources):
                return store.load(self.folder)
        except store.DamagedError as damage:
            if not self._sources() and not isinstance(self.reader, WithoutFiles):
                raise
            if warn:
                _print(f"{damage.what}: they are prepared again", soft_wrap=True)
        return None

    def _prepare(self) -> None:
        self.reader.fetch(self.data_dir)
        started = time.perf_counter()
        with Stages(self.reader.name, STAGES) as stage:
            stage("reading")
            sources = self._sources()
            frames = self.reader.read(self.data_dir)
            prepared = prepare(frames, self.options, stage)
            stage("writing")
            seconds = time.perf_counter() - started
            about = {"sources": sources, "seconds": seconds, "stages": dict(stage.seconds)}
            store.save(self.folder, prepared, about)
        for remark in prepared.meta["remarks"]:
            _print(remark)

    def _sources(self) -> dict[str, list[int]]:
        """Size and time of each raw file that is there."""
        status = {
            os.path.relpath(path, self.data_dir): path.stat()
            for path in self.reader.sources(self.data_dir)
            if path.exists()
        }
        return {name: [file.st_size, file.st_mtime_ns] for name, file in status.items()}


def _print(text: str, soft_wrap: bool = False) -> None:
    """Print on standard error; a remark may have several lines."""
    lines = "\n".join(map(printable, text.split("\n")))
    PlainConsole(stderr=True).print(lines, style="yellow", soft_wrap=soft_wrap)
