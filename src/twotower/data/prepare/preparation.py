"""Prepares a data set once, whatever the number of processes, and again when raw files have changed or the cache is damaged."""

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
from twotower.errors import UserError
from twotower.files import leftovers, recover_folder
from twotower.wording import PlainConsole, printable

STAGES = ("reading", "checking", "ids", "filters", "split", "features", "writing")


class Preparation:
    """A reader's data with the decisions of preparation, and the folder in the cache that holds them.

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
        """Where the prepared data of these options are, or will be."""
        options = {**self.options.plain(), **self.reader.options()}
        return store.cache_folder(self.cache_dir, self.reader.name, options)

    def load(self) -> Prepared:
        """The prepared data; prepared first where they are missing, the raw files have changed or the cache is damaged.

        Raises:
            UserError: for missing or malformed raw files, and a damaged cache whose raw files are not there.
        """
        folder = self.run()
        try:
            return store.load(folder)
        except store.DamagedError:
            pass
        with self.alone():
            try:  # another process may have prepared them again while this one waited
                return store.load(folder)
            except store.DamagedError as damage:
                self._give_up(damage)
            self._prepare()
        return store.load(folder)

    def run(self, force: bool = False) -> Path:
        """Folder of the prepared data. One process prepares and the others wait for it.

        Args:
            force: prepare anew what is there already.
        """
        if not force and self._is_current(say=False):
            self._tidy()
            return self.folder
        with self.alone():
            if force or not self._is_current(say=True):
                self._prepare()
        return self.folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process writes the folder, and what a killed one left has been put right."""
        folder = self.folder
        with ExitStack() as held:
            with store.writable(self.cache_dir):
                message = f"another process is preparing {self.reader.name}: waiting for it"
                held.enter_context(waiting_lock(self._lock, message))
                recover_folder(folder)
            yield

    @property
    def _lock(self) -> Path:
        return Path(f"{self.folder}.lock")

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it replaced good data; those may be read-only for us."""
        if leftovers(self.folder):
            with suppress(OSError), locks.if_free(self._lock) as is_free:
                if is_free:
                    recover_folder(self.folder)

    def _is_current(self, say: bool) -> bool:
        try:
            return store.is_current(self.folder, self._sources)
        except store.DamagedError as damage:
            self._give_up(damage, say)
            return False

    def _give_up(self, damage: store.DamagedError, say: bool = True) -> None:
        """Raise if there is nothing to prepare damaged data from; else say that they are prepared again."""
        if not self._sources() and not isinstance(self.reader, WithoutFiles):
            raise damage
        if say:
            _tell(f"{damage.what}: they are prepared again", soft_wrap=True)

    def _prepare(self) -> None:
        self.reader.fetch(self.data_dir)
        started = time.perf_counter()
        with Stages(self.reader.name, STAGES) as stage:
            stage("reading")
            sources = self._sources()
            frames = self.reader.read(self.data_dir)
            prepared = prepare(frames, self.options, stage)
            stage("writing")
            about = {
                "sources": sources,
                "seconds": time.perf_counter() - started,
                "stages": dict(stage.seconds),
            }
            store.save(self.folder, prepared, about)
        for remark in prepared.meta["remarks"]:
            _tell(remark)

    def _sources(self) -> dict[str, list[int]]:
        """Size and time of each raw file that is there.

        Raises:
            UserError: for a pipe or a device, which would be read for ever.
        """
        found = [path for path in self.reader.sources(self.data_dir) if path.exists()]
        for path in found:
            if not path.is_file() and not path.is_dir():
                raise UserError(
                    f"{path} is no ordinary file but a pipe or a device: put the file of {self.reader.name} there"
                )
        return {
            os.path.relpath(path, self.data_dir): [path.stat().st_size, path.stat().st_mtime_ns]
            for path in found
        }


def _tell(text: str, soft_wrap: bool = False) -> None:
    """On standard error; a remark may have several lines."""
    lines = "\n".join(map(printable, text.split("\n")))
    PlainConsole(stderr=True).print(lines, style="yellow", soft_wrap=soft_wrap)
