"""What a sweep says while it runs: how many runs have ended, and how long the others may take."""

import json

import pytest

from tests.helpers.waiting import wait_until
from twotower.sweep import watch
from twotower.sweep.plan import Run


@pytest.fixture
def runs(tmp_path):
    made = [
        Run([f"seed={seed}"], tmp_path / f"seed-{seed}", f"f{seed}", "mf", "d") for seed in range(4)
    ]
    for run in made:
        run.folder.mkdir()
        run.place.mark.write_text(run.fingerprint)
    return made


def finish(run, seconds=60.0, **more):
    run.place.record.write_text(json.dumps({"wall_seconds": seconds, **more}))


def test_each_end_is_a_line_and_what_was_done_before_counts(runs, monkeypatch, capsys):
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    printed = []

    def lines():
        printed.extend(capsys.readouterr().out.splitlines())
        return len(printed)

    finish(runs[0])
    runs[1].place.write_failure("of an earlier sweep", [])
    with watch.watching(runs, at_once=1):
        finish(runs[2])
        wait_until(lambda: lines() == 1)
        runs[1].place.write_failure("again, and a longer message", [])
        wait_until(lambda: lines() == 2)
        finish(runs[3])
    lines()
    first, second, third = printed
    assert first.startswith("2 of 4 runs ended, about ") and first.endswith(" left")
    assert second.startswith("3 of 4 runs ended, about ") and third == "4 of 4 runs ended"


def test_the_pace_of_parallel_runs_is_not_that_of_the_first_one(runs):
    """Two at a time that take a minute: when the first has ended, the second nearly has, too."""
    finish(runs[0])
    assert watch._seconds_each(runs[:1], 60.0, at_once=2) == 30
    finish(runs[1])
    assert watch._seconds_each(runs[:2], 62.0, at_once=2) == 30
    assert watch._seconds_each(runs[:2], 62.0, at_once=1) == 31  # such as a cluster with its queue
    runs[2].place.write_failure("no record of its time", [])
    assert watch._seconds_each(runs[2:3], 5.0, at_once=1) == 5


def test_a_run_of_a_pass_has_a_share_of_its_time(runs):
    finish(runs[0], fused=4)  # the first that ends, and the others nearly have, too
    assert watch._seconds_each(runs[:1], 62.0, at_once=1) == 15
