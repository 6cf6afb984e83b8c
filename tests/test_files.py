"""Atomic writing: a killed or failing writer leaves the old file or folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twotower import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    files.write_text(target, "old")
    with pytest.raises(OSError), files.whole_file(target) as partial:
        partial.write_text("half")
        raise OSError("no space left")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["record.json"]


def test_a_file_gets_its_name_once_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    with files.whole_file(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["record.json"]


def test_a_failing_writer_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with files.whole_folder(target) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(OSError), files.whole_folder(target) as partial:
        (partial / "a").write_text("half")
        raise OSError("no space left")
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "export"
    for content in ("old", "new"):
        with files.whole_folder(target) as partial:
            (partial / content).write_text(content)
    assert names(target) == ["new"]
    assert names(tmp_path) == ["export"]


KILLED = """
import os, pathlib, sys
from twotower import files
target, rename, seen = pathlib.Path(sys.argv[1]), pathlib.Path.rename, []
def counted(self, to):
    if len(seen) == int(sys.argv[2]):
        os._exit(9)
    seen.append(to)
    return rename(self, to)
pathlib.Path.rename = counted
files.shutil.rmtree = lambda *args, **options: os._exit(9)  # after the renames
with files.whole_folder(target) as partial:
    (partial / "a").write_text("new")
"""


@pytest.mark.parametrize(("renames", "content"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_writer_killed_at_any_rename_loses_nothing(
    tmp_path: Path, renames: int, content: str
) -> None:
    target = tmp_path / "export"
    with files.whole_folder(target) as partial:
        (partial / "a").write_text("old")
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(target), str(renames)]
    assert subprocess.run(command, env=environment).returncode == 9
    files.recover_folder(target)
    assert (target / "a").read_text() == content
    assert names(tmp_path) == ["export"]


@pytest.mark.parametrize(
    "name", [".export.v2.a1b2c3d4.partial", ".export.backup.old", ".export.My-Notes.partial"]
)
def test_folders_of_other_targets_are_kept(tmp_path: Path, name: str) -> None:
    # the first belongs to a target "export.v2", which another process may be writing
    (tmp_path / name).mkdir()
    with files.whole_folder(tmp_path / "export"):
        pass
    assert names(tmp_path) == [name, "export"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_link_is_replaced_and_its_target_is_kept(tmp_path: Path, whole: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    if whole:
        elsewhere.mkdir()
        (elsewhere / "a").write_text("old")
    (tmp_path / "export").symlink_to(elsewhere)
    (tmp_path / ".export.a1b2c3d4.old").symlink_to(elsewhere)  # of a killed process
    with files.whole_folder(tmp_path / "export") as partial:
        (partial / "a").write_text("new")
    assert not (tmp_path / "export").is_symlink() and names(tmp_path / "export") == ["a"]
    assert names(tmp_path) == (["elsewhere", "export"] if whole else ["export"])
    assert not whole or (elsewhere / "a").read_text() == "old"
