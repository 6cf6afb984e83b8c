"""What is said of a long evaluation before it is over."""

import polars as pl
import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.retrieval import exact, forecast
from twotower.retrieval.forecast import Forecast, duration, evaluation_bytes


def run(monkeypatch, seconds, num_steps=10, **settings):
    """A forecast told of steps that take ``seconds``; after two it reads the clock no more."""
    clock = iter(torch.tensor(seconds).double().cumsum(0).tolist())
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(clock))
    found = Forecast("test", num_steps, 1000, torch.zeros(50_000, 8), **settings)
    for _ in range(num_steps):
        found.step(torch.zeros(100, 8))
    return found


def test_the_second_step_tells_and_the_first_does_not(monkeypatch, capsys):
    found = run(monkeypatch, [100, 7, 0])  # 7 s a step, ten steps; the first warmed up
    assert found.seconds == 70
    # 50,000 x 8 floats twice are less than scores and comparisons of 20 users at a time: 2^20 // 50,000
    line = (
        f"test: 1,000 users x 50,000 items, about 70 s, {(50_000 * 32 + 20 * 50_000 * 9) / 2**20:.0f} MiB for vectors and scores"
    )
    assert capsys.readouterr().err.strip() == line


@pytest.mark.parametrize(("seconds", "settings"), [([100, 2.9, 0], {}), ([100, 7, 0], {"silent": True})])
def test_short_evaluations_and_other_processes_say_nothing(monkeypatch, capsys, seconds, settings):
    run(monkeypatch, seconds, **settings)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "said"), [(45.4, "45 s"), (119, "119 s"), (1800, "30 min"), (9000, "2.5 h")])
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_memory_is_that_of_the_largest_chunk(monkeypatch):
    monkeypatch.setattr(exact, "SCORES_PER_CHUNK", 600)
    user, item = torch.zeros(40, 3, 4), torch.zeros(100, 4)  # 2 users at a time: 600 scores, the best of three, comparisons
    assert exact.chunk_bytes(user, item) == 2 * 100 * (3 * 4 + 4 + 5)
    assert exact.chunk_bytes(user[:1], item) == 1 * 100 * 21
    assert evaluation_bytes(user, item) == 1600 + 4200
    assert evaluation_bytes(user, torch.zeros(100, 400)) == 2 * 160_000  # vectors are put together from as many


def test_training_says_what_long_evaluations_take(script, monkeypatch):
    monkeypatch.setattr(forecast, "LONG", 0.0)
    done = script("train", *SMALL, "data.eval_batch_size=40", "trainer.max_epochs=1", "model=two_tower", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if " users x " in line]
    num_users = pl.read_parquet(script.folder / "run" / "test_ranks.parquet")["user"].n_unique()
    assert [line.split(":")[0] for line in said] == ["val", "test", "oracle"]
    assert all(f": {num_users} users x " in line and " items, about 0 s, " in line for line in said)


def test_top_k_masks_what_each_user_has_seen_in_every_chunk(monkeypatch):
    """Against sorting by hand, with users who have seen nothing and chunks without any."""
    generator = torch.Generator().manual_seed(0)
    user, item = torch.randn(23, 4, generator=generator), torch.randn(31, 4, generator=generator)
    seen = (torch.rand(23, 31, generator=generator) < 0.3) & (torch.arange(23) % 4 > 0)[:, None]
    seen[8:13] = False
    scores = (user @ item.T).masked_fill(seen, float("-inf"))
    expected = scores.sort(descending=True).indices[:, :5].tolist()
    row, index = seen.nonzero().T
    for rows in (1, 2, 5, 23, 100):
        monkeypatch.setattr(exact, "_rows_per_chunk", lambda scores, device, rows=rows: rows)
        assert exact.top_k(user, item, row, index, 5)[1].tolist() == expected
