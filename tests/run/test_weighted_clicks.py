"""Weights of a user's own clicks, from the file to the metrics."""

import numpy as np
import polars as pl
import pytest


def clicks_with_noise(num_users=300, num_items=100, num_tastes=4):
    """Each user has 12 random clicks of weight 0, and between them 10 on items of its own taste."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        taste = np.arange(user % num_tastes, num_items, num_tastes)
        liked = rng.choice(taste, 10, replace=False)
        other = rng.choice(np.setdiff1d(np.arange(num_items), liked), 12, replace=False)
        own = [(item, 0.0) for item in other] + [(item, 2.0) for item in liked[:-2]]
        rng.shuffle(own)
        own += [(item, 2.0) for item in liked[-2:]]  # to validate and to test
        rows += [(user, int(item), time, weight) for time, (item, weight) in enumerate(own)]
    return pl.DataFrame(rows, schema=["user", "item", "step", "trust"], orient="row")


SETTINGS = (
    "data=table",
    "data.reader.interactions=clicks.csv",
    "data.reader.columns.time=step",
    "data.reader.time_unit=step",
    "model=two_tower",
    "model.user_features=[user_id]",
    "callbacks.progress=null",
    "callbacks.diagnostics=null",
)


@pytest.mark.slow
def test_weights_tell_clicks_from_noise(script):
    clicks_with_noise().write_csv(script.folder / "clicks.csv")
    found = {}
    for name, column in (("with", "trust"), ("without", "null")):
        run = script(
            "train", *SETTINGS, f"data.reader.columns.weight={column}", f"hydra.run.dir={name}"
        )
        assert run.returncode == 0, run.stderr
        found[name] = script.metrics(name)["test"]["hit_rate@10"]
    # of the 25 items of a taste 17 are left to recommend: 10 / 17 = .59 is the best possible
    assert found["with"] > 0.45 and found["with"] > found["without"] + 0.1, found
    settings = [text for text in SETTINGS if "features" not in text and "model" not in text]
    closed = script("train", *settings, "model=popularity", "data.reader.columns.weight=trust")
    assert closed.returncode == 1 and "reads no weights" in closed.stderr
