"""Unpacks downloaded zip files inside their folder."""

import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

# all that zipfile raises for damaged, encrypted and unusually compressed archives
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
)


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
        UnpackError: if a member would leave the folder, a needed file is missing, or the archive is
            damaged.
        OSError: if it cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name:
                    raise UnpackError(f"holds {name[:100]!r}, outside its folder: refused")
                if path.parts[:1] == (top,) and not name.endswith("/"):
                    content.extract(name, folder)
    except DAMAGE as error:
        raise UnpackError(f"is damaged or no zip file ({error})") from error
    for name in needed:
        if not (folder / top / name).is_file():
            raise UnpackError(f"holds no {top}/{name}")
