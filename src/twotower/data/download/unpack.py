"""Zip files from strangers: nothing leaves its folder or fills the disk."""

import errno
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from twotower.data.download import bombs

MAX_MEMBERS = 100_000
SHOWN = 100  # characters of a name in a message
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks the others in large pieces
ENCRYPTED = 1
# zipfile also ends in errors of its own code where a header is damaged.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    struct.error,
)
NAME_FAULTS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


class UnpackError(Exception):
    """What is wrong with an archive, as the end of a sentence that begins with its name."""


def unpack(archive: Path, folder: Path, top: str, needed: list[str]) -> None:
    """Unpack the files below ``top`` to ``folder/top``, with plain permissions.

    Files beside the top folder are left out: macOS and Windows add some.

    Args:
        archive: a zip file.
        folder: is made; after an error the caller removes what it holds.
        top: folder inside the archive.
        needed: files that must be there, relative to ``top``.

    Raises:
        UnpackError: if a member would leave the folder, is a link or a device or comes twice, if
            all is absurdly much, if a needed file is not there, or if the archive is damaged.
        OSError: if it cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            _check(members, bombs.limit(archive))
            for member in members:
                if not member.is_dir() and PurePosixPath(member.filename).parts[:1] == (top,):
                    content.extract(member, folder)  # refuses more bytes than the header says
    except DAMAGE as error:
        raise UnpackError(f"is damaged or no zip file ({error})") from error
    except OSError as error:
        if error.errno in NAME_FAULTS:
            name = str(error.filename)[-SHOWN:]
            raise UnpackError(
                f"holds a name that is no file's ({error.strerror}): {name!r}"
            ) from error
        if error.errno == errno.EINVAL:  # a place before the file's beginning
            raise UnpackError(f"is damaged ({error})") from error
        raise
    for name in needed:
        if not (folder / top / name).is_file():
            raise UnpackError(f"holds no {top}/{name}")


def _check(members: list[zipfile.ZipInfo], most: int) -> None:
    """Refuse by the headers, before a byte is written."""
    if len(members) > MAX_MEMBERS:
        raise UnpackError(f"holds more than {MAX_MEMBERS:,} files: refused")
    if sum(member.file_size for member in members) > most:
        raise UnpackError(f"unpacks to more than {most:,} bytes, which looks like a bomb: refused")
    paths = set()
    for member in members:
        name = member.orig_filename
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise UnpackError(f"holds {name[:SHOWN]!r}, outside its folder: refused")
        # 0: made on Windows
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnpackError(f"holds {name[:SHOWN]!r}, a link or a device: refused")
        if path in paths:
            raise UnpackError(f"holds {name[:SHOWN]!r} twice: refused")
        if member.compress_type not in METHODS or member.flag_bits & ENCRYPTED:
            message = f"holds {name[:SHOWN]!r} with a password or in an unusual compression"
            raise UnpackError(message)
        paths.add(path)
