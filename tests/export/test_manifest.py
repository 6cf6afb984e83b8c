"""Damaged and mismatched files are refused by name, and so is a folder that is taken."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from twotower.errors import UserError
from twotower.export import manifest
from twotower.export.folder import alone, check_target
from twotower.files import whole_folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "copy")


def test_what_was_written_passes_and_every_file_is_named(folder):
    record = manifest.check(folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert record["files"].keys() == files - {"manifest.json"}
    assert record["schema"]["user_tower"]["inputs"][0] == {
        "name": "user_id",
        "feature": "user_id",
        "dtype": "int64",
        "shape": ["batch"],
        "kind": "categorical",
        "num_values": 28,
    }
    assert record["schema"]["user_tower"]["output"] == {
        "name": "vector",
        "dtype": "float32",
        "shape": ["batch", 32],
    }


def test_damage_is_named(folder):
    index = folder / "index.faiss"
    whole = index.read_bytes()
    index.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"index\.faiss is truncated"):
        manifest.check(folder)
    index.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"index\.faiss is not the file that was exported"):
        manifest.check(folder)
    index.write_bytes(whole)
    (folder / "vocabularies" / "item.brand.parquet").unlink()
    with pytest.raises(UserError, match=r"item\.brand\.parquet is missing"):
        manifest.check(folder)


def test_a_manifest_of_a_newer_version_or_none_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(
        UserError, match=r"manifest\.json has format version 2, and this .* reads up to 1"
    ):
        manifest.check(folder)
    path.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        manifest.check(folder)
    path.unlink()
    with pytest.raises(UserError, match="is no export"):
        manifest.check(folder)


def test_an_export_is_replaced_with_force_alone(folder, tmp_path):
    with pytest.raises(UserError, match="exported already: set force=true"):
        check_target(folder, False)
    check_target(folder, True)
    check_target(tmp_path / "new", False)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="is a link: name the folder itself"):
        check_target(tmp_path / "link", True)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="is no export: name another folder"):
        check_target(folder, True)


def small(folder, text="old"):
    """An export as small as can be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabularies").mkdir()
    (folder / "README.md").write_text(text)
    (folder / "vocabularies" / "item.brand.parquet").write_text(text)
    manifest.write(folder, {"model": "m", "data": "d"})
    return folder


def others(folder):
    (folder / "vocabularies" / "notes.txt").touch()
    return "vocabularies/notes.txt"


def link(folder):
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")
    return "README.md/"


def hidden(folder):
    (folder / ".git").mkdir()
    return ".git/"


def pipe(folder):
    os.mkfifo(folder / "pipe")
    return "pipe/"


@pytest.mark.parametrize("add", [others, link, hidden, pipe])
def test_a_folder_with_anything_else_is_not_replaced(tmp_path, add):
    name = add(small(tmp_path / "export"))
    with pytest.raises(
        UserError, match=f"holds what is of no export, and is not replaced: {name}; move that away"
    ):
        check_target(tmp_path / "export", True)


SHA = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": None}, "format_version: Input should be a valid integer"),
        ({"format_version": True}, "format_version: Input should be a valid integer"),
        ({"kind": "web app"}, "kind: Input should be 'twotower export'"),
        ({"model": ["m"]}, "model: Input should be a valid string"),
        ({"files": []}, "files: Input should be a valid dictionary"),
        ({"files": {}}, "files: Dictionary should have at least 1 item"),
        ({"files": {"README.md": 3}}, "files.README.md: Input should be"),
        (
            {"files": {"README.md": {"bytes": -1, "sha256": SHA}}},
            "files.README.md.bytes: Input should be greater",
        ),
        (
            {"files": {"README.md": {"bytes": 10**99, "sha256": SHA}}},
            "files.README.md.bytes: Input should be less",
        ),
        (
            {"files": {"README.md": {"bytes": 0, "sha256": "x"}}},
            "files.README.md.sha256: String should match",
        ),
        *(
            ({"files": {name: {"bytes": 0, "sha256": SHA}}}, "no export holds a file called")
            for name in (
                "/etc/hostname",
                "../x",
                "thesis.docx",
                "vocabularies/../../item.a.parquet",
                "",
                "a\0",
                "\x1b[31m",
            )
        ),
    ],
)
def test_an_odd_manifest_is_refused_in_one_line_and_nothing_is_replaced(tmp_path, changes, reason):
    path = small(tmp_path / "export") / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for use in (manifest.check, lambda folder: check_target(folder, True)):
        with pytest.raises(UserError) as error:
            use(path.parent)
        text = str(error.value)
        assert (
            reason in text
            and text.isprintable()
            and "move the folder away and export again" in text
        )


@pytest.mark.parametrize(
    "content", ["[1]", "3", '"x"', "null", "[" * 100_000, "\0", '{"files": NaN}', "1" * 5000]
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path, content):
    small(tmp_path / "export")
    (tmp_path / "export" / "manifest.json").write_text(content)
    with pytest.raises(
        UserError, match=r"manifest\.json is damaged or of no export \(.*\): move the folder"
    ) as error:
        manifest.check(tmp_path / "export")
    assert str(error.value).isprintable()


def test_a_check_never_leaves_the_folder(tmp_path, monkeypatch):
    folder, outside = small(tmp_path / "export"), small(tmp_path / "outside")
    for name in ("README.md", "vocabularies"):
        inside = folder / name
        inside.rename(tmp_path / "kept")
        inside.symlink_to(outside / name)
        with pytest.raises(UserError, match="is a link or lies behind one"):
            manifest.check(folder)
        inside.unlink()
        (tmp_path / "kept").rename(inside)
    manifest.check(folder)
    (folder / "manifest.json").rename(folder / "x")
    (folder / "manifest.json").symlink_to(outside / "manifest.json")
    with pytest.raises(UserError, match="it is a link"):
        manifest.check(folder)
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(UserError, match="it is no ordinary file"):
        manifest.check(folder)
    (folder / "manifest.json").unlink()
    (folder / "x").rename(folder / "manifest.json")
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="it has more than"):
        manifest.check(folder)


def replace(folder):
    """What writing an export does around its content."""
    with alone(folder):
        check_target(folder, True)
        with whole_folder(folder) as partial:
            small(partial, "new")
            check_target(folder, True)


def killed_at(step, folder):
    """Replace in a process that dies at the ``step``-th change of the file system; False if it ended before."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(change):
            def call(*args, **keywords):
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(9)
                return change(*args, **keywords)

            return call

        for name in ("mkdir", "rename", "rmdir", "unlink", "fsync", "open"):
            setattr(os, name, counted(getattr(os, name)))
        replace(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_killed_replacement_loses_nothing_and_leaves_nothing(tmp_path):
    folder, step = tmp_path / "export", 1
    small(folder)
    while killed_at(step, folder):
        with alone(folder):
            found = [path.name for path in tmp_path.iterdir()]
        assert sorted(found) == [".locks", "export"], step
        manifest.check(folder)
        shutil.rmtree(folder)
        small(folder)
        step += 1
    assert step > 20 and (folder / "README.md").read_text() == "new"
    manifest.check(folder)


def test_two_exports_to_one_place_refuse_each_other(tmp_path):
    refused = pytest.raises(
        UserError,
        match=rf"is being exported by another process.*process {os.getpid()} on .* holds ",
    )
    with alone(tmp_path / "export"), alone(tmp_path / "other"), refused, alone(tmp_path / "export"):
        pass
    with alone(tmp_path / "export"):
        pass
    for name in (".", ".."):
        with pytest.raises(UserError, match="name a folder to make"), alone(Path(name)):
            pass
