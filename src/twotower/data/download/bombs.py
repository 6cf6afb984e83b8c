"""How much a compressed file unpacks to, and where it is absurd: a few kilobytes of zeros can hang a reader for hours."""

import zlib
from pathlib import Path
from typing import IO

MAX_BYTES = 100 << 30
MAX_RATIO = 100  # text shrinks to a tenth, logs to a thirtieth
FREE_BYTES = 64 << 20  # unpacking to this little is never refused, whatever the ratio
BLOCK = 1 << 20
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ZLIB_MAGICS = (b"\x78\x01", b"\x78\x9c", b"\x78\xda")  # Polars unpacks these too, whatever the name
SKIPPABLE = b"\x2a\x4d\x18"  # ends the mark of a Zstandard frame that holds no data
ZSTD_BLOCK = 128 << 10  # the most that a block unpacks to
CURES = {GZIP_MAGIC: "gunzip -k", ZSTD_MAGIC: "zstd -d", **dict.fromkeys(ZLIB_MAGICS, "pigz -dk")}


def limit(path: Path) -> int:
    """The most bytes that a file may unpack to."""
    return min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))


def too_large(path: Path) -> str | None:
    """What is wrong with a gzip, zlib or Zstandard file that unpacks to more than its limit; None for every other file.

    Damage is left to whoever reads the file. A gzip or zlib file is unpacked once to count; of a
    Zstandard file the heads of its blocks tell.
    """
    most = limit(path)
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] in (GZIP_MAGIC, *ZLIB_MAGICS):
            return _refusal(most, magic[:2], path) if _deflated_exceeds(file, most) else None
        if magic == ZSTD_MAGIC or magic[1:] == SKIPPABLE:
            return _refusal(most, ZSTD_MAGIC, path) if _zstd_exceeds(file, most) else None
    return None


def _refusal(most: int, magic: bytes, path: Path) -> str:
    return f"unpacks to more than {most:,} bytes, which looks like a bomb: if you trust it, unpack it, {CURES[magic]} {path}"


def _deflated_exceeds(file: IO[bytes], most: int) -> bool:
    total = 0
    data = file.read(BLOCK)
    while data:  # one member after another
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib
        try:
            while data and not stream.eof:
                total += len(stream.decompress(data, BLOCK))
                if total > most:
                    return True
                data = stream.unconsumed_tail or stream.unused_data or file.read(BLOCK)
        except zlib.error:
            return False
    return False


def _zstd_exceeds(file: IO[bytes], most: int) -> bool:
    """By the bound of each block (RFC 8878, 3.1.1.2), so a file of many tiny blocks seems larger than it is."""
    total = 0
    while len(magic := file.read(4)) == 4:
        if magic[1:] == SKIPPABLE:
            file.seek(int.from_bytes(file.read(4), "little"), 1)
            continue
        if magic != ZSTD_MAGIC:
            return False
        descriptor = int.from_bytes(file.read(1), "little")
        single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
        size_bytes = (single, 2, 4, 8)[descriptor >> 6]
        file.seek((1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes, 1)
        last = 0
        while not last:
            head = file.read(3)
            if len(head) < 3:
                return False
            number = int.from_bytes(head, "little")
            last, kind, size = number & 1, number >> 1 & 3, number >> 3
            total += (
                ZSTD_BLOCK if kind == 2 else size
            )  # raw and repeated bytes say how many they are
            if total > most:
                return True
            file.seek(1 if kind == 1 else size, 1)
        file.seek(4 * checksum, 1)
    return False
