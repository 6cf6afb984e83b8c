"""Damaged files and folders that must not be replaced are refused by name."""

import json
import os
import shutil

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
    for damaged in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1])):
        index.write_bytes(damaged)
        with pytest.raises(UserError, match=r"index\.faiss is damaged: .* export again"):
            manifest.check(folder)
    index.write_bytes(whole)
    (folder / "vocabularies" / "item.brand.parquet").unlink()
    with pytest.raises(UserError, match=r"item\.brand\.parquet is missing"):
        manifest.check(folder)


def small(folder, text="old"):
    """An export as small as can be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabularies").mkdir()
    (folder / "README.md").write_text(text)
    (folder / "vocabularies" / "item.brand.parquet").write_text(text)
    manifest.write(folder, {"model": "m", "data": "d"})
    return folder


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "[" * 100_000, '{"name": "web app", "icons": []}', '{"files": {"a": 3}}'],
    ids=lambda content: content[:20],
)
def test_another_manifest_is_refused_in_one_line_and_nothing_is_replaced(tmp_path, content):
    folder = small(tmp_path / "export")
    (folder / "manifest.json").write_text(content)
    for use in (manifest.check, lambda folder: check_target(folder, True)):
        with pytest.raises(
            UserError, match=r"manifest\.json is damaged, or is not from an export"
        ) as error:
            use(folder)
        assert str(error.value).isprintable() and "move the folder away" in str(error.value)


def test_a_manifest_of_a_newer_version_or_none_is_refused(tmp_path):
    folder = small(tmp_path / "export")
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(UserError, match=r"has format version 2, and this .* reads up to 1"):
        manifest.check(folder)
    path.unlink()
    with pytest.raises(
        UserError, match=r"is not an export: it has no manifest\.json: name another"
    ):
        manifest.check(folder)


def test_an_export_is_replaced_with_force_alone(tmp_path):
    folder = small(tmp_path / "export")
    with pytest.raises(UserError, match="exported already: set force=true"):
        check_target(folder, False)
    check_target(folder, True)
    check_target(tmp_path / "new", False)
    for name in ("vocabularies/notes.txt", ".git/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        with pytest.raises(UserError, match=f"is not replaced: {name}: move them away"):
            check_target(folder, True)
        (folder / name).unlink()
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="is not an export: it has no .*: name another folder"):
        check_target(folder, True)


def replace(folder):
    """What writing an export does around its content."""
    with alone(folder):
        check_target(folder, True)
        with whole_folder(folder) as partial:
            small(partial, "new")
            check_target(folder, True)


def killed_at(step, folder):
    """Replace in a process that dies at the given change of the file system; False if it ends."""
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
