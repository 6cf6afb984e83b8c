"""A file that is still coming, and beside it what is known of it, so that another process can go on."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

BLOCK = 1 << 20


class Known(NamedTuple):
    """What the server said of the file when its first byte came.

    Attributes:
        url: where the bytes come from.
        validator: ETag or Last-Modified; empty where there is none, and then nothing can be continued.
        total: size of the whole file; None where the server did not say.
    """

    url: str
    validator: str
    total: int | None


class Partial:
    """The bytes that have come, in ``path``. The caller holds a lock.

    Args:
        path: hidden, and on the disk of its target, so that a rename is all that :meth:`finish` needs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._memory = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, known: Known) -> None:
        """Start anew: an empty file first, so that a process killed here never leaves old bytes with a new description."""
        self.path.write_bytes(b"")
        self._memory.write_text(json.dumps(known._asdict()))

    def recall(self, url: str) -> Known | None:
        """What is known of these bytes, if they can be continued."""
        try:
            known = Known(**json.loads(self._memory.read_text()))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):  # nothing there, or its writer was killed
            return None
        return known if known.url == url and known.validator and self.path.exists() else None

    def discard(self) -> None:
        """Remove the bytes and what is known of them."""
        self.path.unlink(missing_ok=True)
        self._memory.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """The file is whole: give it its name."""
        self.path.rename(target)
        self._memory.unlink(missing_ok=True)


def has_checksum(path: Path, checksum: str) -> bool:
    """Does the file on the disk, whichever attempts it came by, have this ``md5:…`` or ``sha256:…``?"""
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == expected.lower()
