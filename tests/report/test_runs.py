"""What a run folder is, and why one is not counted."""

import json
import os

import numpy as np
import pytest

from tests.report.world import make_ranks, make_run
from twotower.errors import UserError
from twotower.report import runs
from twotower.report.ranks import read_ranks

RANKS = make_ranks(0, 0, num_users=30)


def reason(folder):
    found = runs.read(folder, folder.name, ["ndcg@10"])
    assert isinstance(found, runs.LeftOut)
    return found.reason


def test_run_folders_are_found_below_a_folder_by_glob_and_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = make_run(tmp_path / "a" / "model=dat,seed=0", RANKS), make_run(tmp_path / "b", RANKS)
    (tmp_path / "a" / "report").mkdir()  # a report's own folder is no run
    assert runs.find(["a", "b"]) == [one.relative_to(tmp_path), two.relative_to(tmp_path)]
    assert len(runs.find(["a", str(tmp_path / "a"), "?/model=*"])) == 1
    assert runs.find([str(tmp_path / "a" / "*")]) == [one]
    with pytest.raises(UserError, match="runs=c: there is no run folder"):
        runs.find(["a", "c"])


def test_a_failed_run_says_why_until_it_completes(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "failed.json").write_text(
        json.dumps({"error": "the loss is nan\nat step 3", "overrides": [], "time": "now"})
    )
    assert reason(folder) == "failed: the loss is nan at step 3"
    (folder / "failed.json").write_text('{"err')
    assert reason(folder) == "failed, and failed.json is damaged"


def test_an_unfinished_run_says_when_it_last_wrote(tmp_path):
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "config.yaml"
    path.write_text("seed: 0")
    os.utime(path, (path.stat().st_mtime - 600,) * 2)
    assert reason(tmp_path) == "not finished: running, or killed; last written 10 min ago"
    (tmp_path / ".metrics.json.partial").write_text("{")
    assert reason(tmp_path).startswith("not finished (metrics.json was being written): ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"model": "d', "damaged: metrics.json cannot be read"),
        ("[1]", "damaged: metrics.json cannot be read"),
        ("{}", "damaged: metrics.json lacks model, data, data_fingerprint, seed, overrides, test"),
    ],
)
def test_damaged_metrics(tmp_path, text, expected):
    (tmp_path / "metrics.json").write_text(text)
    assert reason(tmp_path).startswith(expected)


def test_missing_values_status_and_settings(tmp_path):
    assert (
        reason(make_run(tmp_path / "a", RANKS, test={"ndcg@10": float("nan")}))
        == "no test value of ndcg@10"
    )
    assert reason(make_run(tmp_path / "b", RANKS, test={"mrr": 0.1})) == "no test value of ndcg@10"
    assert reason(make_run(tmp_path / "c", RANKS, status="stopped")) == "its status is stopped"
    assert reason(make_run(tmp_path / "d", RANKS, settings=None)).startswith(
        "its settings are not known"
    )


def test_null_is_unset(tmp_path):
    """A run from before a setting was there is one with those that leave it at null."""
    found = runs.read(
        make_run(tmp_path / "a", RANKS, settings={"loss.lambda1": 0.5, "data.min_value": None}),
        "a",
        ["ndcg@10"],
    )
    assert found.settings == {"loss.lambda1": 0.5}


def test_damaged_ranks_are_named(tmp_path):
    folder = make_run(tmp_path / "a", RANKS)
    assert np.array_equal(read_ranks(folder).rank, RANKS.rank)
    whole = (folder / "test_ranks.parquet").read_bytes()
    (folder / "test_ranks.parquet").write_bytes(whole[: len(whole) // 2])
    assert read_ranks(folder).startswith("test_ranks.parquet is damaged")
    (folder / "test_ranks.parquet").unlink()
    assert read_ranks(folder) == "no test_ranks.parquet"
