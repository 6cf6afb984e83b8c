"""Archives that leave their folder, are damaged, or lack a file."""

import stat
import zipfile
from pathlib import Path

import pytest

from twotower.data.download.unpack import UnpackError, unpack


def make_zip(path, members, mode=0, method=zipfile.ZIP_DEFLATED):
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


def test_permissions_are_ours(tmp_path):
    unpacked(make_zip(tmp_path / "a", {"a/one.dat": b"1"}, mode=stat.S_IFREG | 0o4777))
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "out" / "a" / "one.dat").stat().st_mode == (
        tmp_path / "plain"
    ).stat().st_mode


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
    refused(archive, "is damaged or no zip file .*password")


@pytest.mark.parametrize("at", (0, 80, 160))
def test_a_zip_is_checked_whole_or_named_damaged(tmp_path, at):
    """One byte of the stored content is changed."""
    archive = make_zip(tmp_path / "a", {"a/one.dat": bytes(200)}, method=zipfile.ZIP_STORED)
    unpacked(archive)
    content = bytearray(archive.read_bytes())
    content[39 + at] ^= 1  # after a local header of 30 bytes and a name of 9
    archive.write_bytes(content)
    with pytest.raises(UnpackError, match="is damaged"):
        unpacked(archive)


@pytest.mark.parametrize("other", ["a/three.dat", "a/two.dat/three.dat"])
def test_a_needed_file_that_is_not_there(tmp_path, other):
    with pytest.raises(UnpackError, match="holds no a/two.dat"):
        unpacked(make_zip(tmp_path / "a", {"a/one.dat": b"1", other: b""}), "one.dat", "two.dat")
