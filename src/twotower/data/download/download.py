"""Downloads official files once, in one process, and verifies them."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pooch
import requests
from pooch.hashes import hash_matches
from tqdm import tqdm

from twotower.data.download.unpack import UnpackError, unpack
from twotower.data.progress import waiting_lock
from twotower.errors import UserError
from twotower.files import whole_file

BLOCK = 1 << 20
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two bytes
RETRIES = 2
FINAL = {400, 401, 403, 404, 410}  # no other attempt would succeed


class RefusedError(Exception):
    """An answer that is not the file; another attempt would not help. The message is a reason."""


class Archive(NamedTuple):
    """A zip file with one top folder.

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
        """Paths of the needed files."""
        return [data_dir / self.top / name for name in self.files]

    def fetch(self, data_dir: Path) -> None:
        """Download, verify and unpack, unless the files are there.

        One process downloads, the others wait. An archive in ``data_dir`` with the official name,
        put there by hand, is used instead of the network. Files that are already in the top folder
        stay.

        Raises:
            UserError: if it cannot be downloaded or is not the official file, naming the file to
                fetch by hand.
        """
        paths = self.paths(data_dir)
        by_hand = data_dir / _name(self.url)
        cure = (
            f"fetch it by hand to {by_hand}, or unpack it so that {paths[0]} exists, "
            "or set paths.data_dir"
        )
        if all(path.exists() for path in paths):
            return
        with _locked(data_dir / self.top, by_hand.name, cure) as folder:
            if all(path.exists() for path in paths):  # another process has fetched them meanwhile
                return
            source, archive = str(by_hand), by_hand
            if by_hand.is_file():
                cure = f"delete it, or fetch {_without_secrets(self.url)} again"
                if not hash_matches(by_hand, self.checksum):
                    raise UserError(
                        f"{by_hand} is not the official file (its checksum differs): {cure}"
                    )
            else:
                source = _without_secrets(self.url)
                archive = _download(self.url, self.checksum, folder, cure)
            try:
                unpack(archive, folder / "unpacked", self.top, self.files)
            except UnpackError as error:
                raise UserError(f"{source} {error}: {cure}") from error
            for file in sorted((folder / "unpacked" / self.top).rglob("*")):
                target = data_dir / file.relative_to(folder / "unpacked")
                if file.is_file() and not target.exists():
                    _install(file, target)


class SingleFile(NamedTuple):
    """One file that is kept as it is downloaded, compressed or not.

    Attributes:
        url: official address.
        checksum: ``sha256:…`` or ``md5:…``; None where none is published.
        path: its place, relative to ``data_dir``.
    """

    url: str
    checksum: str | None
    path: str

    def paths(self, data_dir: Path) -> list[Path]:
        """Its path, as a list."""
        return [data_dir / self.path]

    def fetch(self, data_dir: Path) -> None:
        """Download and verify, unless it is there. One process downloads, the others wait.

        Raises:
            UserError: if it cannot be downloaded or is not the official file, naming the file to
                fetch by hand.
        """
        target = data_dir / self.path
        cure = f"fetch it by hand to {target}, or set paths.data_dir"
        if target.exists():
            return
        with _locked(target, target.name, cure) as folder:
            if not target.exists():  # another process may have fetched it meanwhile
                _install(_download(self.url, self.checksum, folder, cure), target)


def _name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _without_secrets(url: str) -> str:
    """The address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _download(url: str, checksum: str | None, folder: Path, cure: str) -> Path:
    """Download to ``folder`` and verify.

    Proxies, certificates and ``.netrc`` are those of requests.

    Raises:
        UserError: if it fails.
    """
    pooch.get_logger().setLevel("WARNING")  # its messages hold the whole address
    files = pooch.create(
        folder, "", registry={"file": checksum}, urls={"file": url}, retry_if_failed=RETRIES
    )
    try:
        file = Path(files.fetch("file", downloader=_attempt))
        if file.stat().st_size == 0:
            raise RefusedError("it is empty")
    except (RefusedError, requests.RequestException, ValueError) as error:
        message = f"cannot download {_without_secrets(url)} ({_reason(error)}): {cure}"
        raise UserError(message) from None
    file.chmod(0o644)  # only the owner may read temporary files
    return file


def _attempt(url: str, target: str, files: pooch.Pooch) -> None:
    bar_options = {"desc": f"downloading {_name(url)}", "unit": "B", "unit_scale": True}
    with tqdm(total=1, leave=False, disable=None, **bar_options) as bar:  # pooch sets the total
        download = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=BLOCK,
            timeout=TIMEOUT_S,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": _check_answer},
        )
        download(url, target, files)


def _check_answer(response: requests.Response, **_: Any) -> None:
    """Refuse answers that are not the file; requests calls it when an answer begins.

    Raises:
        RefusedError: for a missing file, and for a web page instead of the file.
    """
    if response.status_code in FINAL:
        raise RefusedError(f"{response.status_code} {response.reason}")
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    if response.status_code == 200 and is_page:
        raise RefusedError("a web page came instead of the file: a login, or the proxy's message")
    if _name(response.url).endswith(".gz"):
        # Some servers call a .gz a text with Content-Encoding gzip: it must stay a .gz.
        response.raw.headers.pop("Content-Encoding", None)


def _reason(error: Exception) -> str:
    """A short reason. The text of requests is left out: it repeats the address and its secrets."""
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.RequestException):
        return type(error).__name__
    return "its checksum differs from the official one"


def _install(file: Path, target: Path) -> None:
    """Move a finished file to its place, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        file.rename(partial)


@contextmanager
def _locked(target: Path, name: str, cure: str) -> Iterator[Path]:
    """Hold the lock of ``target`` and give an empty folder beside it, removed at the end.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    folder = target.parent
    partial = folder / f".{target.name}.fetching"
    message = f"another process is downloading {name}: waiting for it"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder / f".{target.name}.lock", message):
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
            partial.mkdir()
            try:
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{folder} has no room for {name} ({reason}): free space there and run again, "
                "or set paths.data_dir to a folder on another disk"
            ) from error
        message = f"{name} is missing and {folder} cannot be written ({reason}): {cure}"
        raise UserError(message) from error
