"""Small made-up shops: the planted truth is right, and the defaults come close to it."""

import json

import numpy as np
import polars as pl
import pytest

from benchmarks.shops import NUM_BOOKS, write_shop
from twotower.errors import UserError


def test_a_shop_is_as_large_as_it_says_and_always_the_same(tmp_path):
    folders = [tmp_path / name for name in ("one", "other", "next")]
    for folder in folders:
        folder.mkdir()
    truth = [
        write_shop(folder, 2_000, seed) for folder, seed in zip(folders, (0, 0, 1), strict=True)
    ]
    assert truth[0] == truth[1] != truth[2] and min(truth) > 0.3 and max(truth) < 0.6
    clicks = [(folder / "clicks.csv").read_bytes() for folder in folders]
    assert clicks[0] == clicks[1] != clicks[2]
    frame = pl.read_csv(folders[0] / "clicks.csv")
    assert 1_900 < frame.height < 2_100 and frame["book"].n_unique() <= NUM_BOOKS[2_000]
    assert frame.group_by("customer").len()["len"].min() >= 4
    assert not frame.select("customer", "book").is_duplicated().any()


def test_customers_click_the_subjects_they_like(tmp_path):
    """Two subjects get 1/2 and 1/4 of the clicks, and their share of the last quarter."""
    write_shop(tmp_path, 5_000, 0)
    frame = pl.read_csv(tmp_path / "clicks.csv").join(pl.read_csv(tmp_path / "books.csv"), "book")
    counts = frame.group_by("customer", "subject").len().sort("len", descending=True)
    largest = counts.group_by("customer").agg(pl.col("len").head(2).sum())["len"].sum()
    assert 0.7 < largest / frame.height < 0.85


def test_other_sizes_are_refused(tmp_path):
    with pytest.raises(UserError, match="sizes"):
        write_shop(tmp_path, 3_000, 0)


@pytest.mark.slow
def test_the_defaults_learn_more_than_popularity(script):
    """Defaults that fit larger data gave .067 on the first shop, and popularity .077."""
    run = script("benchmark", "benchmark=shops", "sizes=[5000]", "output=o.json")
    assert run.returncode == 0, run.stderr
    shops = json.loads((script.folder / "o.json").read_text())["shops"]
    truth, popularity, model = (
        np.mean([shop[key] for shop in shops]) for key in ("truth", "popularity", "model")
    )
    assert len(shops) == 3 and model > 0.6 * truth and model > 1.5 * popularity
    assert "5,000" in run.stdout and f"{model / truth:.0%}" in run.stdout
