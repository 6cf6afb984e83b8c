"""Official archives: downloaded once, verified, unpacked without leaving their folder."""

import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pooch
import requests
from filelock import FileLock

from twotower.types import UserError

MAX_UNPACKED_BYTES = 20 << 30
TIMEOUT_S = 20


class Archive(NamedTuple):
    """A zip file with one top folder.

    Attributes:
        url: official address.
        checksum: of the zip file: ``sha256:…`` or ``md5:…``; None where none is published.
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

        Raises:
            UserError: if it cannot be downloaded or is not the official file; the line says what to fetch by hand.
        """
        if _complete(self.paths(data_dir)):
            return
        by_hand = f"fetch it by hand and unpack it so that {self.paths(data_dir)[0]} exists, or set paths.data_dir"
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{self.top}.lock"):
            if not _complete(self.paths(data_dir)):
                archive = _download(self.url, self.checksum, data_dir, f".{self.top}.zip", by_hand)
                unpack(archive, data_dir, self.top)
                archive.unlink()


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
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                by_hand = f"fetch it by hand to {target}, or set paths.data_dir"
                _download(self.url, self.checksum, target.parent, f".{target.name}.partial", by_hand).rename(target)


def _complete(paths: list[Path]) -> bool:
    return all(path.exists() for path in paths)


def _download(url: str, checksum: str | None, folder: Path, name: str, by_hand: str) -> Path:
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    try:
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_S)
        return Path(pooch.retrieve(url, known_hash=checksum, fname=name, path=folder, downloader=downloader))
    except requests.RequestException as error:
        raise UserError(f"cannot download {url} ({type(error).__name__}): {by_hand}") from error
    except ValueError as error:  # pooch's word for a wrong checksum; the file is gone by then
        raise UserError(f"{url} is not the official file (its checksum differs): {by_hand}") from error


def unpack(archive: Path, data_dir: Path, top: str) -> None:
    """Unpack a zip file to ``data_dir/top``; each file appears there when it is whole, and none is overwritten.

    Raises:
        UserError: if a member would leave its folder, if it unpacks to absurdly much, or if the file is damaged.
    """
    partial = data_dir / f".{top}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            for member in members:
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts or path.parts[:1] != (top,) or "\\" in member.filename:
                    raise UserError(f"{archive} holds {member.filename!r}, outside its folder {top}: refused")
            if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
                raise UserError(f"{archive} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB: refused")
            content.extractall(partial, members)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is damaged ({error}): delete it and run again") from error
    for file in sorted(path for path in (partial / top).rglob("*") if path.is_file()):
        target = data_dir / file.relative_to(partial)
        if not target.exists():  # what the user put there stays
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    shutil.rmtree(partial, ignore_errors=True)
