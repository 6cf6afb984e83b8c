"""Compressed tables: read whole, or refused in one line that names the file."""

import errno
import gzip
import lzma
import tempfile
import zlib
from pathlib import Path

import polars as pl
import pytest

from twotower.data.download import bombs
from twotower.data.readers.parse import open_csv
from twotower.errors import UserError

TEXT = "a,b\n" + "".join(f"{row},{row * row}\n" for row in range(50_000))


def write_zst(path: Path, text: str) -> None:
    plain = path.with_suffix("")
    plain.write_text(text)
    pl.scan_csv(plain).sink_csv(path, compression="zstd", check_extension=False)


WRITERS = {
    "csv": lambda path, text: path.write_text(text),
    "csv.gz": lambda path, text: path.write_bytes(gzip.compress(text.encode())),
    "csv.xz": lambda path, text: path.write_bytes(lzma.compress(text.encode())),
    "csv.zst": write_zst,
}


def total(path: Path) -> int:
    with open_csv(path) as plain:
        return pl.scan_csv(plain).select(pl.col("b").sum()).collect().item()


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())  # nothing stays, whatever happened


@pytest.mark.parametrize("suffix", WRITERS)
def test_read_whole(tmp_path, suffix):
    path = tmp_path / f"clicks.{suffix}"
    WRITERS[suffix](path, TEXT)
    # sum of squares below n: (n - 1) n (2n - 1) / 6
    assert total(path) == 49_999 * 50_000 * 99_999 // 6


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.xz", "csv.zst"])
def test_a_truncated_stream_is_one_line(tmp_path, suffix):
    path = tmp_path / f"clicks.{suffix}"
    WRITERS[suffix](path, TEXT)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=rf"^\S*clicks\.{suffix} is damaged or cut short \(.*\): fetch it again$"
    ):
        total(path)


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    for name, message in (
        ("none.csv", "is missing"),
        ("empty.csv", "is empty"),
        ("", "is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            total(tmp_path / name)


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    path = tmp_path / "clicks.csv.xz"
    WRITERS["csv.xz"](path, TEXT)

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("twotower.data.readers.parse.limit", no_room)
    with pytest.raises(UserError, match=r"no room to unpack .*clicks\.csv\.xz: set TMPDIR"):
        total(path)


CURES = {"gz": "gunzip -k", "zst": "zstd -d", "xz": "xz -dk"}


@pytest.mark.parametrize("suffix", CURES)
def test_a_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(bombs, "FREE_BYTES", 100_000)
    path = tmp_path / f"clicks.csv.{suffix}"
    WRITERS[f"csv.{suffix}"](path, "a,b\n" + "1,2\n" * 2_000_000)  # 8 MB, as some kilobytes
    most = max(100_000, 100 * path.stat().st_size)
    cure = f"if you trust it, unpack it, {CURES[suffix]} {path}"
    with pytest.raises(
        UserError, match=rf"clicks.csv.{suffix} unpacks to more than {most:,} bytes.*{cure}$"
    ):
        total(path)
    monkeypatch.setattr(bombs, "FREE_BYTES", 10_000_000)
    assert total(path) == 4_000_000


def test_every_part_of_a_gzip_file_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(bombs, "FREE_BYTES", 50_000)
    path = tmp_path / "a.csv.gz"
    parts = [
        gzip.compress(b"a,b\n" + b"1,2\n" * 5_000),
        gzip.compress(b"1,2\n" * 8_000),
        b"\0" * 100,
    ]
    for num, refused in ((1, False), (2, True), (3, True)):
        path.write_bytes(b"".join(parts[:num]))
        assert bool(bombs.too_large(path)) == refused
    path.write_bytes(parts[0][:-9] + b"junk" + parts[1])  # damage is for the reader to tell
    assert bombs.too_large(path) is None
    path.write_bytes(b"plain text")
    assert bombs.too_large(path) is None


@pytest.mark.parametrize(
    ("frame", "unpacked"),
    [
        # a frame of one segment has a size of one byte; then a block of 3 raw bytes, the last
        (b"\x28\xb5\x2f\xfd\x20\x03" + b"\x19\0\0abc", 3),
        # no size, a window byte, a checksum: 100,000 bytes "a" by repeating one
        (
            b"\x28\xb5\x2f\xfd\x04\x58" + (100_000 << 3 | 3).to_bytes(3, "little") + b"a" + b"sums",
            100_000,
        ),
        # a compressed block of 5 bytes unpacks to at most 128 KiB
        (b"\x28\xb5\x2f\xfd\x00\x58" + (5 << 3 | 5).to_bytes(3, "little") + b"12345", 131_072),
        # a frame that is skipped
        (b"\x53\x2a\x4d\x18\x04\0\0\0skip", 0),
    ],
)
def test_the_size_of_zstandard_frames(tmp_path, monkeypatch, frame, unpacked):
    path = tmp_path / "a.zst"
    path.write_bytes(frame * 2 + frame[:7])
    monkeypatch.setattr(bombs, "limit", lambda _: 2 * unpacked)
    assert bombs.too_large(path) is None
    monkeypatch.setattr(bombs, "limit", lambda _: 2 * unpacked - 1)
    assert unpacked == 0 or bombs.too_large(path)


@pytest.mark.parametrize("level", [0, 6, 9])
def test_a_zlib_stream_is_measured_too(tmp_path, monkeypatch, level):
    """Polars unpacks it, whatever its name says."""
    path = tmp_path / "a.csv"
    path.write_bytes(zlib.compress(b"user,item\n" * 1000, level))
    monkeypatch.setattr(bombs, "limit", lambda _: 10_000)
    assert bombs.too_large(path) is None
    monkeypatch.setattr(bombs, "limit", lambda _: 9_999)
    assert "looks like a bomb" in bombs.too_large(path)
