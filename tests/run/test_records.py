"""Records that are damaged, or much too large."""

import json

import pytest

from twotower.files import read_bytes
from twotower.run.run_folder import RunFolder
from twotower.sweep.plan import Run, estimate_seconds


def test_damaged_records_are_left_out_of_an_estimate(tmp_path):
    for name, record in (("good", {"overrides": [], "wall_seconds": 5.0}), ("odd", [1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(record))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "metrics.json").write_text("[" * 100_000)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "metrics.json").symlink_to("/dev/zero")
    assert RunFolder(tmp_path / "deep").read_record() == {}
    seconds, num_known = estimate_seconds(
        [Run(["model=dat"], tmp_path / "new", "f", "dat", "toy")], tmp_path
    )
    assert seconds == [None] and num_known == 1


def test_a_file_has_bounded_size(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "file", 10) == b"x" * 10
    with pytest.raises(ValueError, match="more than"):
        read_bytes(tmp_path / "file", 9)
