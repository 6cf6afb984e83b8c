"""Compressed tables: read whole, or refused in one line that names the file."""

import errno
import gzip
import lzma
import tempfile
from pathlib import Path

import polars as pl
import pytest

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

    monkeypatch.setattr("twotower.data.readers.parse.shutil.copyfileobj", no_room)
    with pytest.raises(UserError, match=r"no room to unpack .*clicks\.csv\.xz: set TMPDIR"):
        total(path)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """Memory and time go with the limit, not with what the file would unpack to."""
    path = tmp_path / "clicks.csv.gz"
    path.write_bytes(gzip.compress(bytes(8 << 20)) * 25)  # 200 MiB in 0.2 MiB
    with pytest.raises(UserError, match=r"clicks\.csv\.gz unpacks to more than 64 MiB.*gunzip"):
        total(path)
