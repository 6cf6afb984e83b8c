"""What a run folder is, and why one is left out."""

import json
import os

import numpy as np
import pytest

from tests.report.world import METRICS, make_ranks, make_run
from twotower.errors import UserError
from twotower.report import runs
from twotower.report.folders import find
from twotower.report.learning import read_curve
from twotower.report.ranks import read_ranks
from twotower.run.run_folder import RunFolder

RANKS = make_ranks(0, 0, num_users=30)
NDCG = {"ndcg@10": METRICS["ndcg@10"]}


def reason(folder):
    read = runs.read(folder, folder.name, NDCG)
    assert isinstance(read, runs.LeftOut)
    return read.reason


def test_run_folders_are_found_below_a_folder_and_by_glob_and_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = make_run(tmp_path / "a" / "model=dat,seed=0", RANKS), make_run(tmp_path / "b", RANKS)
    (tmp_path / "a" / "report").mkdir()  # a report's own folder is no run
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert find(["a", "b"]) == {one: "a/model=dat,seed=0", two: "b"}
    assert find(["a", str(tmp_path / "a"), "?/model=*", "link"]) == {one: one.name}
    assert list(find([str(tmp_path / "a" / "*")])) == [one]
    with pytest.raises(UserError, match="runs=c: there is no run folder"):
        find(["a", "c"])


def test_a_failed_run_gives_its_error(tmp_path):
    error = {"error": "the loss is nan\nat step 3", "overrides": [], "time": "now"}
    (tmp_path / "failed.json").write_text(json.dumps(error))
    assert reason(tmp_path) == "failed: the loss is nan at step 3"
    (tmp_path / "failed.json").write_text('{"err')
    assert reason(tmp_path) == "failed: failed.json is damaged"


@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_device_is_not_read(tmp_path, place):
    """Reading one could wait for ever, or fill the memory."""
    for name in ("metrics.json", "failed.json", "metrics.csv", "test_ranks.parquet"):
        place(tmp_path / name)
    expected = "damaged: metrics.json cannot be used (it is not an ordinary file)"
    assert reason(tmp_path) == expected
    assert RunFolder(tmp_path).read_error() == "failed.json is damaged"
    assert read_curve(tmp_path, "ndcg@10") == {}
    expected = "test_ranks.parquet is damaged (it is not an ordinary file)"
    assert read_ranks(tmp_path, NDCG, {}) == expected


def test_an_unfinished_run_gives_when_it_last_wrote(tmp_path):
    (tmp_path / ".hydra").mkdir()
    os.utime(tmp_path, (1e9, 1e9))
    assert reason(tmp_path).startswith("not finished: interrupted; last written 2001-09-")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": None}, "damaged: metrics.json cannot be used (model: Field required)"),
        ({"seed": "x"}, "damaged: metrics.json cannot be used (seed: "),
        ({"settings": None}, "damaged: metrics.json cannot be used (settings: Field required)"),
        ({"overrides": [3]}, "damaged: metrics.json cannot be used (overrides.0: "),
        ({"test": {"ndcg@10": float("nan")}}, "no test value of ndcg@10"),
        ({"test": {"mrr": 0.1}}, "no test value of ndcg@10"),
    ],
)
def test_a_record_that_does_not_fit_is_left_out(tmp_path, changes, expected):
    assert reason(make_run(tmp_path / "a", RANKS, **changes)).startswith(expected)


@pytest.mark.parametrize("text", ["", '{"model": "d', "[1]", "\x00", "[" * 100_000])
def test_a_damaged_record_is_left_out(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    assert reason(tmp_path).startswith("damaged: metrics.json cannot be used (")


def test_a_new_setting_that_does_nothing_is_unset(tmp_path):
    """A run from before a setting was there is one with those that leave it at its default."""
    settings = {"loss.lambda1": 0.5, "data.min_value": None, "model.tower": "mlp"}
    read = runs.read(make_run(tmp_path / "a", RANKS, settings=settings), "a", NDCG)
    assert read.record.settings == {"loss.lambda1": 0.5}


def test_an_older_record_has_one_fingerprint(tmp_path):
    changes = {"split_fingerprint": None, "data_fingerprint": "old"}
    read = runs.read(make_run(tmp_path / "a", RANKS, **changes), "a", NDCG)
    assert read.record.split_fingerprint == "old"


def test_damaged_ranks_are_named(tmp_path):
    folder = make_run(tmp_path / "a", RANKS)
    assert np.array_equal(read_ranks(folder, {}, {}).rank, RANKS.rank)
    whole = (folder / "test_ranks.parquet").read_bytes()
    (folder / "test_ranks.parquet").write_bytes(whole[: len(whole) // 2])
    assert read_ranks(folder, {}, {}).startswith("test_ranks.parquet is damaged")
    (folder / "test_ranks.parquet").unlink()
    assert read_ranks(folder, {}, {}) == "no test_ranks.parquet"
