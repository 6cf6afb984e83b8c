"""``recommend.py`` and ``twotower.load`` on one trained run."""

import json

import polars as pl
import pytest
import torch

from tests.helpers.runs import SMALL
from twotower import load

CKPT = "ckpt_path=run"


def test_answers_of_a_trained_run(script, monkeypatch):
    run = script("train", *SMALL, "trainer.max_epochs=2", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    generator = torch.get_rng_state()
    monkeypatch.setenv("TWOTOWER_CACHE_DIR", "nowhere")
    model = load(script.folder / "run", cache_dir=script.folder / "cache")
    assert torch.equal(generator, torch.get_rng_state())  # a notebook's random numbers are its own
    ranks = pl.read_parquet(script.folder / "run" / "test_ranks.parquet")
    assert len(ranks) > 100
    for user, item, _, rank in ranks.iter_rows():
        found = model.recommend(model.users.raw[user], len(model.items.raw), before="test")
        target = found.filter(item=model.items.raw[item])
        near = (found["score"] - target["score"][0]).abs().le(
            1e-6
        ).sum() - 1  # users one by one round otherwise than in a batch
        assert abs(target["rank"][0] - rank) <= near
        assert near > 0 or (model.items.raw[item] in found["item"][:10].to_list()) == (rank <= 10)

    user = model.users.raw[5]
    answer = script("recommend", CKPT, f"user_id={user}", "k=7", "format=json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)  # alone on standard output
    assert found["question"] == {"user_id": user, "known": True} and found["notes"] == []
    assert (
        found["found"] == model.recommend(user, 7).to_dicts()
        and found["history"] == model.history(user, 10).to_dicts()
    )
    table = script("recommend", CKPT, f"user_id={user}", "k=7", "seen=true")
    assert (
        table.returncode == 0
        and "last items, the latest first" in table.stdout
        and "seen" in table.stdout
    )
    near = script("recommend", CKPT, "item_id=3", "k=5", "format=json")
    assert json.loads(near.stdout)["found"] == model.similar(3, 5).to_dicts()
    new = script("recommend", CKPT, "history=[3,4]", "k=5", "format=json")
    assert json.loads(new.stdout)["found"] == model.recommend_history([3, 4], 5).to_dicts()
    assert "cold_ids=mean" in json.loads(new.stdout)["notes"][0]
    unknown = script("recommend", CKPT, "user_id=nobody", "k=5", "format=json")
    found = json.loads(unknown.stdout)
    assert unknown.returncode == 0 and found["question"] == {"user_id": "nobody", "known": False}
    assert "there is no user nobody" in found["notes"][0] and "cold_ids=mean" in found["notes"][0]
    assert found["found"] == model.recommend_history([], 5).to_dicts()

    books = model.recommend(user, 5, where="category=category 1")
    some = script("recommend", CKPT, f"user_id={user}", "k=5", "where=category=category 1")
    assert some.returncode == 0 and all(str(item) in some.stdout for item in books["item"])
    assert set(books["category"]) == {"category 1"}
    every = ("output=lists.parquet", "k=3", "where=[category=category 1|category 2,price>0]")
    run = script("recommend", CKPT, *every)
    assert run.returncode == 0, run.stderr
    lists = pl.read_parquet(script.folder / "lists.parquet")
    assert f"{len(lists)} rows" in run.stdout and "lists.parquet" in run.stdout
    assert len(lists) == 3 * len(model.users.raw)
    again = script("recommend", CKPT, *every)
    assert again.returncode == 1 and "is there already: set force=true" in again.stderr
    again = script("recommend", CKPT, *every, "force=true", "format=json")
    assert json.loads(again.stdout)["rows"] == len(lists)


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("k=3", "history=[…] and output=<file>.parquet (all users), here is none"),
        ("user_id=1 item_id=2", "here are user_id and item_id"),
        ("user_id=1 k=0", "k must be greater than or equal to 1, got 0"),
        ("user_id=[1]", "give one id"),
        ("history=3", "give a list, history=[1,2,3]"),
        ("user_id=", "user_id holds an empty id"),
        ("user_id=1 format=xml", "format"),
        ("user_id=1 usr=2", "usr"),
        ("user_id=1", "cannot be read as a checkpoint"),
        ("output=lists.csv", "output=lists.csv: name a file that ends in .parquet"),
        ("output=a.parquet user_id=1", "here are user_id and output"),
    ],
)
def test_bad_questions_are_one_line(script, question, line):
    (script.folder / "empty.ckpt").touch()
    run = script("recommend", "ckpt_path=empty.ckpt", *question.split())
    assert run.returncode == 1 and line in run.stderr and len(run.stderr.splitlines()) == 1, (
        run.stderr
    )
    assert run.stdout == ""
