"""Zip and tar files that strangers made: nothing leaves its folder, nothing fills the disk, all of it or none."""

import bz2
import errno
import gzip
import lzma
import math
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from twotower.data.download import bombs
from twotower.data.progress import ByteBar, byte_bar

BLOCK = 1 << 20
MAX_MEMBERS = 100_000
MAX_HEADERS = 1 << 14  # bytes before one member of a tar file; names and times take some hundreds
SHOWN = 100  # characters of a name in a message
ZIP_MAGIC = b"PK\x03\x04"
OPENERS: dict[str, Callable[[Path], IO[bytes]]] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # type: ignore[dict-item]
MAGICS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zX": ".xz", b"\x5d\0\0": ".xz"}  # of tar files
SLIPS = (ValueError, LookupError, ArithmeticError, struct.error)  # zipfile and tarfile make at headers that are none
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, *SLIPS)
FOREIGN = (NotImplementedError, RuntimeError)  # zipfile's words for an unknown method and for a password


class UnpackError(Exception):
    """What is wrong with an archive, as the end of a sentence that begins with its name."""


class Member(NamedTuple):
    """One entry of an archive; ``kind`` is file, folder or other (links, devices)."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes]]


class Meter:
    """Counts what is really unpacked, because headers can lie.

    Args:
        archive: its size sets the limit.
        total: what the headers promise, for the bar; None where only reading tells.
    """

    def __init__(self, archive: Path, total: int | None, bar: ByteBar) -> None:
        self.limit = bombs.limit(archive)
        self.total = total
        self.done = 0
        self.bar = bar

    def expect(self, size: int) -> None:
        """Refuse ``size`` more bytes if they are too many."""
        if self.done + size > self.limit:
            raise UnpackError(_looks_like_a_bomb(self.limit))

    def blocks(self, source: IO[bytes]) -> Iterator[bytes]:
        """What ``source`` holds."""
        while block := source.read(BLOCK):
            self.expect(len(block))
            self.done += len(block)
            self.bar(self.done, self.total)
            yield block

    def read(self, source: IO[bytes]) -> None:
        """Read ``source`` to its end, where the checksum of most formats stands."""
        for _ in self.blocks(source):
            pass


def unpack(archive: Path, folder: Path, top: str, needed: list[str]) -> None:
    """Unpack the files below ``top`` to ``folder/top``, with plain permissions; ``folder`` is emptied first.

    Files beside the top folder are left out: macOS and Windows add some.

    Raises:
        UnpackError: if a member would leave the folder, is a link or a device or comes twice, if all is absurdly much, if one
            of the ``needed`` files of ``top`` is not there, or if the archive is damaged; ``folder`` is gone then.
        OSError: if it cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with _reasons(), _opened(archive) as (members, total), byte_bar(f"unpacking {top}") as bar:
            meter = Meter(archive, total, bar)
            meter.expect(total or 0)
            _check_room(folder, total or 0)
            for count, member in enumerate(members, start=1):
                path = _safe_path(member, count)
                meter.expect(member.size)  # of what is left out too: a tar must be read through it
                if path.parts[:1] == (top,) and member.kind == "file":
                    _write(folder / path, meter.blocks(member.open()), member.name)
        for name in needed:
            if not (folder / top / name).is_file():
                raise UnpackError(f"holds no {top}/{name}")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check_whole(path: Path, name: str) -> None:
    """Read a compressed file to its end; what its ending does not call compressed passes.

    Args:
        path: where it lies.
        name: what it will be called.

    Raises:
        UnpackError: if it is damaged, or unpacks to absurdly much.
    """
    suffix = PurePosixPath(name).suffix
    with _reasons(), byte_bar(f"checking {name}") as bar:
        meter = Meter(path, None, bar)
        if suffix == ".zip":
            with _opened(path) as (members, _):
                for member in members:
                    meter.read(member.open())
        elif suffix in OPENERS:
            with OPENERS[suffix](path) as source:
                meter.read(source)


def merge(unpacked: Path, target: Path) -> None:
    """Move ``unpacked/<name of target>`` to ``target``; where that is there already, what the user put into it stays."""
    source = unpacked / target.name
    if not target.exists():
        source.rename(target)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    shutil.rmtree(unpacked, ignore_errors=True)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[Member], int | None]]:
    """Its members, in order, and the bytes that they promise to be."""
    with archive.open("rb") as file:
        magic = file.read(4)
    if magic == ZIP_MAGIC:
        with zipfile.ZipFile(archive) as content:
            infos = content.infolist()
            yield (_of_zip(content, info) for info in infos), sum(info.file_size for info in infos)
        return
    suffix = next((suffix for start, suffix in MAGICS.items() if magic.startswith(start)), None)
    with OPENERS[suffix](archive) if suffix else archive.open("rb") as file:
        source = _TarSource(file, bombs.limit(archive))
        try:
            tar = tarfile.TarFile(fileobj=source)  # type: ignore[arg-type]
        except tarfile.ReadError:
            raise UnpackError("is no zip or tar file, or its beginning is damaged") from None
        with tar:
            yield _members_of_tar(tar, source), None


class _TarSource:
    """What tarfile reads from: it takes a member's headers into memory, however long they say they are.

    Args:
        file: the unpacked bytes.
        limit: the most that there may be.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file = file
        self.limit = limit
        self.left: float = MAX_HEADERS  # bytes that may be read before the next member
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise UnpackError(f"has a header of more than {MAX_HEADERS:,} bytes: refused")
        if self.file.tell() > self.limit:
            raise UnpackError(_looks_like_a_bomb(self.limit))
        return self.file.read(size)


def _members_of_tar(tar: tarfile.TarFile, source: _TarSource) -> Iterator[Member]:
    while (entry := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
        source.left = math.inf  # its content
        yield _of_tar(tar, entry)
        source.left = MAX_HEADERS


def _of_zip(content: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    plain = "folder" if info.is_dir() else "file"
    regular = kind in (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made on Windows
    return Member(info.orig_filename, plain if regular else "other", info.file_size, lambda: content.open(info))


def _of_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    kind = "folder" if entry.isdir() else "file" if entry.isreg() else "other"
    return Member(entry.name, kind, entry.size, lambda: tar.extractfile(entry))  # type: ignore[arg-type, return-value]


def _looks_like_a_bomb(limit: int) -> str:
    return f"unpacks to more than {limit:,} bytes, which looks like a bomb: refused"


def _safe_path(member: Member, count: int) -> PurePosixPath:
    path = PurePosixPath(member.name)
    name = repr(member.name[:SHOWN])
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise UnpackError(f"holds {name}, outside its folder: refused")
    if member.kind == "other":
        raise UnpackError(f"holds {name}, a link or a device: refused")
    if count > MAX_MEMBERS:
        raise UnpackError(f"holds more than {MAX_MEMBERS:,} files: refused")
    return path


def _write(target: Path, blocks: Iterator[bytes], name: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.writelines(blocks)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise UnpackError(f"holds {name[:SHOWN]!r} twice, or as a file and as a folder: refused") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UnpackError(f"holds a name that is too long, {name[:SHOWN]!r} …: refused") from None
        raise


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes to unpack, {free:,} free")


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UnpackError(f"is damaged ({error})") from error
    except FOREIGN as error:
        raise UnpackError(f"cannot be unpacked ({error})") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # bz2's word for damage, and a place before the file's beginning
            raise UnpackError(f"is damaged ({error})") from error
        raise
