"""Archives that mean harm, or are merely odd."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from twotower.data.download import bombs
from twotower.data.download import unpack as module
from twotower.data.download.unpack import UnpackError, unpack


def make_zip(
    path: Path, members: dict[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            archive.writestr(info, content)
    return path


def refused(archive: Path, message: str, top: str = "a") -> None:
    folder = archive.parent / "out"
    with pytest.raises(UnpackError, match=message):
        unpack(archive, folder, top, [])
    assert {path.name for path in archive.parent.iterdir()} <= {archive.name, "out"}


def unpacked(archive: Path, *needed: str) -> dict[str, bytes]:
    folder = archive.parent / "out"
    unpack(archive, folder, "a", list(needed))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_files_of_the_top_folder_are_unpacked(tmp_path):
    members = {
        "./a/one.dat": b"1",
        "a/b/two.dat": b"2" * 512,
        "__MACOSX/a/._one.dat": b"x",
        ".DS_Store": b"x",
        "README": b"x",
    }
    assert unpacked(make_zip(tmp_path / "a", members), "one.dat") == {
        "a/one.dat": b"1",
        "a/b/two.dat": b"2" * 512,
    }


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\evil", "../a/evil"])
def test_nothing_leaves_its_folder(tmp_path, name):
    refused(make_zip(tmp_path / "a", {"a/one.dat": b"1", name: b"x"}), "outside its folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_zip_files(tmp_path, kind):
    refused(
        make_zip(tmp_path / "a", {"a/link": b"/etc/passwd"}, mode=kind | 0o777),
        "'a/link', a link or a device",
    )


def test_permissions_are_ours(tmp_path):
    unpacked(make_zip(tmp_path / "a", {"a/one.dat": b"1"}, mode=stat.S_IFREG | 0o4777))
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "out" / "a" / "one.dat").stat().st_mode == (
        tmp_path / "plain"
    ).stat().st_mode


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", [("a/one.dat", "a/one.dat"), ("a/one", "a/one/two"), ("a/one/two", "a/one")]
)
def test_a_name_that_comes_twice(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        for name in names:
            archive.writestr(name, "1")
    refused(tmp_path / "a", "twice|a name that is no file's")


# Bombs: 50,000 bytes of zeros shrink to about 150


def test_a_bomb_is_refused_by_its_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(bombs, "FREE_BYTES", 0)
    monkeypatch.setattr(zipfile.ZipFile, "extract", None)  # not a byte is unpacked
    refused(
        make_zip(tmp_path / "a", {"beside": bytes(50_000)}), r"unpacks to more than [\d,]+ bytes"
    )


def test_many_small_ones_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr(bombs, "MAX_BYTES", 40_000)
    refused(
        make_zip(tmp_path / "a", {f"a/{number}": bytes(10_000) for number in range(5)}),
        "unpacks to more than 40,000 bytes",
    )


def test_the_ratio_is_free_below_a_size(tmp_path):
    assert unpacked(make_zip(tmp_path / "a", {"a/zeros": bytes(1 << 20)})) == {
        "a/zeros": bytes(1 << 20)
    }  # shrinks to 1/1000


def test_a_zip_that_lies_about_its_size(tmp_path, monkeypatch):
    """Both headers say 5 bytes, and 50,000 come: whatever zipfile makes of it, no more than the limit is written."""
    monkeypatch.setattr(bombs, "FREE_BYTES", 100)
    monkeypatch.setattr(bombs, "MAX_RATIO", 0)
    archive = make_zip(tmp_path / "a", {"a/zeros": bytes(50_000)})
    content = archive.read_bytes()
    assert content.count(struct.pack("<L", 50_000)) == 2
    archive.write_bytes(content.replace(struct.pack("<L", 50_000), struct.pack("<L", 5)))
    refused(archive, "is damaged|unpacks to more")


def test_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    refused(
        make_zip(tmp_path / "a", {f"a/{number}": b"" for number in range(4)}),
        "holds more than 3 files",
    )


# Damage


def test_a_truncated_archive(tmp_path):
    archive = make_zip(
        tmp_path / "a", {f"a/{number}": bytes(range(256)) * 9 for number in range(20)}
    )
    archive.write_bytes(archive.read_bytes()[:-200])
    refused(archive, "is damaged")


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a").write_text("<html>")
    refused(tmp_path / "a", "no zip file")


def test_a_zip_with_a_password(tmp_path):
    archive = make_zip(tmp_path / "a", {"a/one.dat": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # flag of the central directory: encrypted
    content[6] |= 1
    archive.write_bytes(content)
    refused(archive, "with a password")


@pytest.mark.parametrize("at", range(0, 160, 7))
def test_a_zip_is_checked_whole_or_named_damaged(tmp_path, at):
    """One byte of the stored content is changed."""
    archive = make_zip(tmp_path / "a", {"a/one.dat": bytes(200)}, method=zipfile.ZIP_STORED)
    unpacked(archive)
    content = bytearray(archive.read_bytes())
    content[39 + at] ^= 1  # after a local header of 30 bytes and a name of 9
    archive.write_bytes(content)
    with pytest.raises(UnpackError, match="is damaged"):
        unpacked(archive)


def test_an_unusual_compression(tmp_path):
    """zipfile unpacks LZMA in pieces of any size."""
    refused(
        make_zip(tmp_path / "a", {"a/one.dat": b"1"}, method=zipfile.ZIP_LZMA),
        "unusual compression",
    )


def test_a_name_that_is_too_long(tmp_path):
    archive = make_zip(tmp_path / "a", {"a/" + "b" * 300: b"1"})
    refused(archive, r"a name that is no file's \(File name too long\): 'b{100}'")


@pytest.mark.parametrize("other", ["a/three.dat", "a/two.dat/three.dat"])
def test_a_needed_file_that_is_not_there(tmp_path, other):
    with pytest.raises(UnpackError, match="holds no a/two.dat"):
        unpacked(make_zip(tmp_path / "a", {"a/one.dat": b"1", other: b""}), "one.dat", "two.dat")


def test_slips_of_the_library_are_damage(tmp_path):
    """zipfile ends in an IndexError at an empty name, and in a UnicodeDecodeError at one that is no UTF-8."""
    make_zip(tmp_path / "a", {"b": b"1"})
    content = (tmp_path / "a").read_bytes()
    assert content[26:28] == b"\1\0"
    start = content.index(b"PK\x01\x02")
    flagged = bytearray(content)
    flagged[start + 9] |= 8  # the name is UTF-8
    flagged[start + 46] = 0xFF
    for damaged in (flagged, content[: start + 28] + b"\0\0\1\0" + content[start + 32 :]):
        (tmp_path / "a").write_bytes(damaged)
        refused(tmp_path / "a", "is damaged")
