"""Records that others may have written."""

import json

import pytest

from twotower.files import read_bytes
from twotower.run.records import fitting
from twotower.run.run_folder import RunFolder
from twotower.sweep.plan import Run, estimate_seconds

NAN, HUGE = float("nan"), 10**400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("wall_seconds", value) for value in (NAN, float("inf"), -1, "3", True, HUGE, None, [1])),
        *(("overrides", value) for value in ("model=dat", {"a": 1}, [3], None)),
        *(
            (name, value)
            for name in ("val", "test")
            for value in ([0.1], {"mrr": "x"}, {"mrr": NAN}, 3)
        ),
        *((name, value) for name in ("model", "data", "error") for value in ([], {}, 3)),
    ],
)
def test_a_field_that_does_not_fit_is_missing(name, value):
    assert fitting({name: value, "note": 1}) == {"note": 1}


def test_what_fits_stays():
    record = {
        "model": "dat",
        "overrides": ["a=1"],
        "wall_seconds": 3.5,
        "test": {"mrr": 0.1, "zero_items": 0},
    }
    assert fitting(record) == record
    assert [fitting(value) for value in ([1], None, "x")] == [{}, {}, {}]


def test_odd_records_hold_up_no_estimate(tmp_path):
    odd = [
        {"wall_seconds": NAN},
        {"overrides": "x", "wall_seconds": 5.0},
        {"model": [1], "data": {}, "wall_seconds": 5.0},
        [1],
    ]
    for place, record in enumerate(odd):
        (tmp_path / str(place)).mkdir()
        (tmp_path / str(place) / "metrics.json").write_text(json.dumps(record))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "metrics.json").write_text("[" * 100_000)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "metrics.json").symlink_to("/dev/zero")
    assert RunFolder(tmp_path / "deep").read_record() == {}
    seconds, num_known = estimate_seconds(
        [Run(["model=dat"], tmp_path / "new", "f", "dat", "toy")], tmp_path
    )
    assert seconds == [None] and num_known == 2


def test_a_file_has_bounded_size(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "file", 10) == b"x" * 10
    with pytest.raises(ValueError, match="more than"):
        read_bytes(tmp_path / "file", 9)
