"""Official files: downloaded once, by one process, verified, unpacked inside their folder."""

import errno
import gzip
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pooch
import requests
from pooch.hashes import hash_matches
from tqdm import tqdm

from twotower.data.download.bombs import too_large
from twotower.data.download.unpack import UnpackError, unpack
from twotower.data.progress import waiting_lock
from twotower.errors import UserError
from twotower.files import whole_file

BLOCK = 1 << 20
TIMEOUT_S = (10.0, 30.0)  # to connect, and without a byte after that
RETRIES = 2
FINAL = {400, 401, 403, 404, 410}  # another attempt would end alike
REASONS = (  # no text of requests: it repeats the address, which may hold a password or a token
    (requests.exceptions.SSLError, "no secure connection"),
    (requests.exceptions.ProxyError, "no connection to the proxy"),
    (requests.Timeout, "no answer in time"),
    (requests.ConnectionError, "no connection, or it broke"),
    (requests.exceptions.ChunkedEncodingError, "the connection broke"),
    (requests.RequestException, "not an address that leads to a file"),
    (ValueError, "its checksum differs from the official one"),
)


class RefusedError(Exception):
    """An answer that is not the file, and would not be at another attempt; the message is a short reason."""


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
        """Where the needed files lie."""
        return [data_dir / self.top / name for name in self.files]

    def fetch(self, data_dir: Path) -> None:
        """Download, verify and unpack, unless the files are there. One process at a time; the others wait.

        An archive that lies in ``data_dir`` under its official name, put there by hand, is used
        instead of the network. Files that the user has put into the top folder stay.

        Raises:
            UserError: if it cannot be downloaded or is not the official file; the line says what to fetch by hand.
        """
        paths = self.paths(data_dir)
        brought = data_dir / _name(self.url)
        cure = f"fetch it by hand to {brought}, or unpack it so that {paths[0]} exists, or set paths.data_dir"
        if _complete(paths):
            return
        with _alone(data_dir / self.top, brought.name, cure) as folder:
            if _complete(paths):  # by the process that we waited for
                return
            source, archive = str(brought), brought
            if brought.is_file():
                cure = f"delete it, or fetch {_shown(self.url)} again"
                if not hash_matches(brought, self.checksum):
                    message = f"{brought} is not the official file (its checksum differs): {cure}"
                    raise UserError(message)
            else:
                source = _shown(self.url)
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
        cure = f"fetch it by hand to {target}, or set paths.data_dir"
        if target.exists():
            return
        with _alone(target, target.name, cure) as folder:
            if target.exists():  # from the process that we waited for
                return
            file = _download(self.url, self.checksum, folder, cure)
            if self.checksum is None and target.suffix == ".gz" and (fault := _gzip_fault(file)):
                raise UserError(f"{_shown(self.url)} {fault}; deleted: {cure}")
            _install(file, target)


def _complete(paths: list[Path]) -> bool:
    return all(path.exists() for path in paths)


def _name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _shown(url: str) -> str:
    """The address without user, password and query, which can be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _download(url: str, checksum: str | None, folder: Path, cure: str) -> Path:
    """Download to ``folder`` and verify.

    Proxies, certificates and ``.netrc`` are those of requests.

    Raises:
        UserError: if it fails.
    """
    pooch.get_logger().setLevel("WARNING")  # what it tells holds the whole address
    files = pooch.create(
        folder, "", registry={"file": checksum}, urls={"file": url}, retry_if_failed=RETRIES
    )
    try:
        file = Path(files.fetch("file", downloader=_attempt))
        if file.stat().st_size == 0:
            raise RefusedError("it is empty")
    except (RefusedError, requests.RequestException, ValueError) as error:
        raise UserError(f"cannot download {_shown(url)} ({_reason(error)}): {cure}") from None
    file.chmod(0o644)  # temporary files are readable by their owner alone
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
    """Called by requests as an answer starts.

    Raises:
        RefusedError: for a missing file, and for a web page in the place of the file.
    """
    if response.status_code in FINAL:
        raise RefusedError(f"{response.status_code} {response.reason}")
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    if response.status_code == 200 and is_page:
        message = "a web page came instead of the file: a login, or a message of the proxy"
        raise RefusedError(message)
    if _name(response.url).endswith(".gz"):
        # Some servers call a .gz a text with Content-Encoding gzip: it must stay a .gz.
        response.raw.headers.pop("Content-Encoding", None)


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    return next(reason for kind, reason in REASONS if isinstance(error, kind))


def _gzip_fault(path: Path) -> str | None:
    """What is wrong with a gzip file for which no checksum is published; None for a sound one."""
    if fault := too_large(path):
        return fault
    try:
        with gzip.open(path) as file:
            while file.read(BLOCK):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"is damaged ({error})"
    return None


def _install(file: Path, target: Path) -> None:
    """Move a finished file to its place; a process killed here never leaves half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        file.rename(partial)


@contextmanager
def _alone(target: Path, name: str, cure: str) -> Iterator[Path]:
    """Hold the lock of ``target``; gives an empty folder beside it, which is removed at the end.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    folder = target.parent
    partial = folder / f".{target.name}.fetching"
    waits = f"another process is downloading {name}: waiting for it"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder / f".{target.name}.lock", waits):
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
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
