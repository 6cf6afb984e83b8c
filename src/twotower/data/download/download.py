"""Official files: fetched once, by one process, verified, unpacked without leaving their folder."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from twotower.data.download.partial import Partial, has_checksum
from twotower.data.download.transfer import TransferError, download
from twotower.data.download.unpack import UnpackError, check_whole, merge, unpack
from twotower.data.progress import waiting_lock
from twotower.errors import UserError


class Archive(NamedTuple):
    """A zip or tar file with one top folder.

    Attributes:
        url: official address.
        checksum: of the archive: ``sha256:…`` or ``md5:…``; None where none is published.
        top: its top folder, which becomes ``<data_dir>/<top>``.
        files: what the reader needs from that folder.
    """

    url: str
    checksum: str | None
    top: str
    files: list[str]

    def paths(self, data_dir: Path) -> list[Path]:
        """Where the needed files lie."""
        return [data_dir / self.top / name for name in self.files]

    def fetch(self, data_dir: Path) -> None:
        """Download, verify and unpack, unless the files are there. One process at a time; the others wait.

        An archive that lies in ``data_dir`` under its official name, put there by hand, is used instead of the network.

        Raises:
            UserError: if it cannot be downloaded or is not the official file; the line says what to fetch by hand.
        """
        paths = self.paths(data_dir)
        partial = Partial(data_dir / f".{self.top}.download")
        left = partial.path.exists() and os.access(data_dir, os.W_OK)  # by a process killed after it unpacked
        if _complete(paths) and not left:
            return
        brought = data_dir / _name(self.url)
        cure = f"fetch it by hand to {brought}, or unpack it so that {paths[0]} exists, or set paths.data_dir"
        with _alone(data_dir / f".{self.top}", _name(self.url), cure):
            if _complete(paths):
                partial.discard()
                shutil.rmtree(_unpacked_beside(data_dir, self.top), ignore_errors=True)
            elif brought.is_file():
                self._use(brought, data_dir)
            else:
                self._download(data_dir, partial, cure)

    def _use(self, brought: Path, data_dir: Path) -> None:
        """Unpack what the user has put there, and leave it there."""
        if self.checksum and not has_checksum(brought, self.checksum):
            raise UserError(f"{brought} is not the official file (its checksum differs): delete it, or fetch {self.url} again")
        try:
            merge(self._unpacked(brought, data_dir), data_dir / self.top)
        except UnpackError as error:
            raise UserError(f"{brought} {error}: delete it, or fetch {self.url} again") from error

    def _download(self, data_dir: Path, partial: Partial, cure: str) -> None:
        with _received(self.url, self.checksum, partial, _name(self.url), cure):
            unpacked = self._unpacked(partial.path, data_dir)
        merge(unpacked, data_dir / self.top)
        partial.discard()  # last: a process killed before has the download still

    def _unpacked(self, archive: Path, data_dir: Path) -> Path:
        folder = _unpacked_beside(data_dir, self.top)
        unpack(archive, folder, self.top, self.files)
        return folder


class SingleFile(NamedTuple):
    """One file that is kept as it comes, compressed or not.

    Attributes:
        url: official address.
        checksum: ``sha256:…`` or ``md5:…``; None where none is published.
        path: where it goes, relative to ``data_dir``.
    """

    url: str
    checksum: str | None
    path: str

    def paths(self, data_dir: Path) -> list[Path]:
        """Where it lies."""
        return [data_dir / self.path]

    def fetch(self, data_dir: Path) -> None:
        """Download and verify, unless it is there. One process at a time; the others wait.

        Raises:
            UserError: if it cannot be downloaded or is not the official file; the line says what to fetch by hand.
        """
        target = data_dir / self.path
        if target.exists():
            return
        hidden = target.with_name(f".{target.name}")
        cure = f"fetch it by hand to {target}, or set paths.data_dir"
        with _alone(hidden, target.name, cure):
            if not target.exists():
                self._download(target, Partial(hidden.with_name(f"{hidden.name}.download")), cure)

    def _download(self, target: Path, partial: Partial, cure: str) -> None:
        with _received(self.url, self.checksum, partial, target.name, cure):
            partial.finish(target)


def _complete(paths: list[Path]) -> bool:
    return all(path.exists() for path in paths)


def _unpacked_beside(data_dir: Path, top: str) -> Path:
    return data_dir / f".{top}.unpacked"


def _name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


@contextmanager
def _received(url: str, checksum: str | None, partial: Partial, name: str, cure: str) -> Iterator[None]:
    """``partial`` holds the file inside the block, as whole as can be told; what is then found damaged is deleted.

    Raises:
        UserError: if it cannot be downloaded, or is damaged.
    """
    try:
        download(url, checksum, partial)
        if checksum is None:
            check_whole(partial.path, name)
        yield
    except TransferError as error:
        raise UserError(f"cannot download {url} ({error}): {cure}") from error
    except UnpackError as error:
        partial.discard()
        raise UserError(f"{url} {error}; deleted: {cure}") from error


@contextmanager
def _alone(hidden: Path, name: str, cure: str) -> Iterator[None]:
    """One process at a time; trouble with the disk becomes one line.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    folder = hidden.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(hidden.with_name(f"{hidden.name}.lock"), f"another process is downloading {name}: waiting for it"):
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{folder} has no room for {name} ({reason}): free space there and run again, which goes on where this ended, "
                "or set paths.data_dir to a folder on another disk"
            ) from error
        raise UserError(f"{name} is missing and {folder} cannot be written ({reason}): {cure}") from error
