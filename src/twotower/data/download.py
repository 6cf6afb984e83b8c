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
        sha256: checksum of the zip file.
        top: its top folder, which becomes ``<data_dir>/<top>``.
        files: what the reader needs from that folder.
    """

    url: str
    sha256: str
    top: str
    files: list[str]

    def folder(self, data_dir: Path) -> Path:
        """Where the unpacked files lie."""
        return data_dir / self.top

    def is_complete(self, data_dir: Path) -> bool:
        """Are all needed files there?"""
        return all((self.folder(data_dir) / name).exists() for name in self.files)

    def fetch(self, data_dir: Path) -> None:
        """Download, verify and unpack, unless the files are there. One process at a time; the others wait.

        Raises:
            UserError: if it cannot be downloaded or is not the official file; the line says what to fetch by hand.
        """
        if self.is_complete(data_dir):
            return
        by_hand = f"fetch it by hand and unpack it so that {self.folder(data_dir) / self.files[0]} exists, or set paths.data_dir"
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{self.top}.lock"):
            if self.is_complete(data_dir):
                return
            pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
            try:
                archive = pooch.retrieve(
                    self.url,
                    known_hash=f"sha256:{self.sha256}",
                    fname=f".{self.top}.zip",
                    path=data_dir,
                    downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_S),
                )
            except requests.RequestException as error:
                raise UserError(f"cannot download {self.url} ({type(error).__name__}): {by_hand}") from error
            except ValueError as error:  # pooch's word for a wrong checksum; the file is gone by then
                raise UserError(f"{self.url} is not the official file (sha256 differs): {by_hand}") from error
            unpack(Path(archive), data_dir, self.top)
            Path(archive).unlink()


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
