"""Atomic writes, bounded reads and checksums of files."""

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# ends of temporary names, which begin with a dot and the target's name
PARTIAL, OLD = ".partial", ".old"
BLOCK = 1 << 24
MAX_RECORD = 16 << 20  # bytes of a record; that of a run has about 10,000


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, and rename it to ``target`` at the end.

    A process that is killed inside leaves ``target`` as it was, and at most one hidden file beside
    it, which the next call replaces. Only one process may write ``target`` at a time.

    Raises:
        OSError: if the folder cannot be written or the disk is full.
    """
    partial = target.with_name(f".{target.name}{PARTIAL}")
    partial.unlink(missing_ok=True)  # a link in its place would be written through
    try:
        yield partial
        _sync(partial)
        partial.replace(target)
        _sync(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text, see :func:`whole_file`."""
    with whole_file(target) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(target: Path, record: dict[str, Any]) -> None:
    """Write JSON, see :func:`whole_file`."""
    write_text(target, json.dumps(record, indent=1) + "\n")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside ``target`` to fill, and rename it to ``target`` at the end.

    The caller holds the lock of ``target``. Leftovers of a killed process are handled first, see
    :func:`recover_folder`. An old ``target`` is renamed away before the new one gets its name, and
    removed after that.

    Raises:
        OSError: if the parent folder cannot be written or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
    old = partial.with_name(partial.name.removesuffix(PARTIAL) + OLD)
    try:
        partial.chmod(0o755)  # mkdtemp makes it readable by its owner alone
        yield partial
        for path in partial.rglob("*"):
            _sync(path)
        if os.path.lexists(target):
            target.rename(old)
        partial.rename(target)
        _sync(target.parent)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        _remove(partial)
        raise
    _remove(old)


def recover_folder(target: Path) -> None:
    """Repair ``target`` after a process was killed while it replaced it.

    If it was killed between its two renames, the old folder gets its name back. Temporary folders
    are removed. The caller holds the lock of ``target``.
    """
    olds = sorted(leftovers(target, OLD), key=lambda path: path.lstat().st_mtime)
    if olds and not os.path.lexists(target):
        olds.pop().rename(target)
    for path in (*olds, *leftovers(target, PARTIAL)):
        _remove(path)


def leftovers(target: Path, suffix: str = "") -> list[Path]:
    """Temporary folders of ``target``, of a running process or a killed one.

    Args:
        target: as in :func:`whole_folder`.
        suffix: only those with this end.
    """
    if not target.parent.is_dir():
        return []
    ends = re.escape(suffix) if suffix else f"{re.escape(PARTIAL)}|{re.escape(OLD)}"
    # the random part of mkdtemp excludes other folders, such as those of a target "<name>.v2"
    name = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}({ends})")
    return [path for path in target.parent.iterdir() if name.fullmatch(path.name)]


def _remove(path: Path) -> None:
    """Remove a folder or a link to one, as far as that is possible."""
    if path.is_symlink():  # the target was one when it was renamed away
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """Write ``path`` to the disk now, so that a power cut after a rename loses nothing."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def open_ordinary(path: Path) -> Iterator[IO[bytes]]:
    """Open an ordinary file, or a link to one, for reading.

    A pipe, a device or a socket is refused at once: reading it could wait or go on for ever.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not an ordinary file.
    """
    _check_ordinary(path.stat())  # before it is opened: that alone can wake a device
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would block
    with os.fdopen(file, "rb") as opened:
        _check_ordinary(os.fstat(file))
        yield opened


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of bounded size, see :func:`open_ordinary`.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is larger, or not an ordinary file.
    """
    with open_ordinary(path) as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most >> 20:,} MiB")
    return content


def read_json(path: Path, most: int = MAX_RECORD) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: if it cannot be read.
        ValueError: as in :func:`read_bytes`, for invalid JSON and for too deep nesting.
    """
    try:
        return json.loads(read_bytes(path, most))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def crc32(path: Path) -> int:
    """CRC-32 of an ordinary file, which finds damage."""
    checksum = 0
    for block in _blocks(path):
        checksum = zlib.crc32(block, checksum)
    return checksum


def sha256(path: Path) -> str:
    """SHA-256 of an ordinary file, as hexadecimal digits."""
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def short_hash(text: str, digits: int = 8) -> str:
    """The first hexadecimal digits of the SHA-256 of a text, for names and fingerprints."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _blocks(path: Path) -> Iterator[bytes]:
    with open_ordinary(path) as file:
        while block := file.read(BLOCK):
            yield block


def _check_ordinary(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not an ordinary file")
