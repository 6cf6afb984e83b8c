"""Damaged and mismatched files are refused by name, and so is a folder that is taken."""

import json
import shutil

import pytest

from twotower.export import manifest
from twotower.export.folder import _whole_or_absent, check_target
from twotower.types import UserError


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
    assert record["schema"]["user_tower"]["output"] == {"name": "vector", "dtype": "float32", "shape": ["batch", 32]}


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
    with pytest.raises(UserError, match=r"manifest\.json has format version 2, and this .* reads up to 1"):
        manifest.check(folder)
    path.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        manifest.check(folder)
    path.unlink()
    with pytest.raises(UserError, match="is no export"):
        manifest.check(folder)


def test_an_export_is_whole_or_absent(folder, tmp_path):
    with pytest.raises(UserError, match="exported already: set force=true"):
        check_target(folder, False)
    check_target(folder, True)
    with pytest.raises(RuntimeError), _whole_or_absent(folder) as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert manifest.check(folder) and [path.name for path in tmp_path.iterdir()] == ["copy"]
    with _whole_or_absent(folder) as partial:
        (partial / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"] and [path.name for path in tmp_path.iterdir()] == ["copy"]
    with pytest.raises(UserError, match="is no export: name another folder"):
        check_target(folder, True)
