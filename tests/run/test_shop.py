"""The made-up shop, from its files to a trained, exported and queried model."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from tests.conftest import ROOT
from tests.helpers.shop import FOLDER, make_shop

SHOP = (
    f"hydra.searchpath=[{FOLDER / 'conf'}]", "paths.data_dir=.", "experiment=shop",
    "callbacks.progress=null", "callbacks.diagnostics=null",
)  # fmt: skip
# what a run without one part of the data leaves out, by how much it is worse at least, and where
PARTS = {
    "weights": ("data.reader.columns.weight=null", 2, "ndcg@10"),
    "pages": ("negatives=uniform negatives.num=68 ~negatives.second", 1.2, "warm/ndcg@10"),
    "context": ("model.user_features=[user_hash,town,budget,history]", 1.2, "ndcg@10"),
    "events": ("data.history_features=null", 1.2, "ndcg@10"),
    "texts": ("model.item_features=[item_id,category,size,price]", 3, "cold/ndcg@10"),
    "users": ("model.user_features=[user_hash,town,device,history]", 1.1, "ndcg@10"),
}


def test_what_is_planted(tmp_path):
    make_shop().write_shop(tmp_path, 40_000)
    clicks = pl.read_parquet(tmp_path / "clicks.parquet")
    items = pl.read_parquet(tmp_path / "items.parquet")
    users = pl.read_csv(tmp_path / "users.csv")
    text = np.load(tmp_path / "text.npy")
    assert len(clicks) == 40_000 and len(users) == 1000 and len(text) == len(items)
    late = pl.col("time") > clicks["time"].quantile(0.92)
    rows = clicks.join(items, "item").join(users, "user")
    # a phone wants small things, a budget its price
    assert (rows.filter(device="phone", trust=1.0)["size"] == "small").mean() == pytest.approx(
        0.95, abs=0.01
    )
    price = dict(rows.filter(trust=1.0).group_by("budget").agg(pl.col("price").median()).rows())
    assert price["low"] < 31 < 100 < price["middle"] < 310 < price["high"]
    # advertisements are distrusted views without a page, and end
    adverts = rows.filter(pl.col("trust") < 1)
    assert 0.5 < len(adverts) / 36_000 < 0.6 and set(adverts["event"]) == {"view"}
    assert adverts["beside"].null_count() == len(adverts)
    assert rows.filter(late, pl.col("trust") < 1).is_empty()
    assert (rows.filter(late)["event"] == "purchase").mean() == pytest.approx(0.8, abs=0.02)
    # kinds of purchases follow one another
    bought = rows.filter(event="purchase").sort("user", "time")
    kind = bought["kind"].str.tail(1).cast(pl.Int64).to_numpy()
    same = (bought["user"].to_numpy()[1:] == bought["user"].to_numpy()[:-1]).nonzero()[0]
    follows = (kind[same + 1] - kind[same]) % 4 == 1
    assert follows.mean() == pytest.approx(0.925, abs=0.01)  # .9 + .1 / 4
    # new items come late
    first = clicks.group_by("item").agg(pl.col("time").min())
    is_new = first["time"] > clicks["time"].quantile(0.9)
    assert 100 <= is_new.sum() <= 250
    # a chosen item does not stand beside itself
    beside = rows.filter(pl.col("beside").is_not_null())
    assert not beside.select(pl.col("beside").list.contains(pl.col("item"))).to_series().any()
    assert set(beside["beside"].list.len()) == {4}


@pytest.mark.slow
def test_from_files_to_answers(script):
    command = [sys.executable, str(ROOT / "examples" / "shop" / "make_shop.py"), "."]
    subprocess.run([*command, "--events", "20000"], check=True, cwd=script.folder)
    run = script("train", *SHOP, "trainer.max_epochs=2", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    exported = script("export", "ckpt_path=run", "paths.data_dir=.")
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((script.folder / "run" / "export" / "manifest.json").read_text())
    names = {
        side: [entry["name"] for entry in manifest["schema"][f"{side}_tower"]["inputs"]]
        for side in ("user", "item")
    }
    assert set(names["user"]) == {
        "user_hash", "town", "budget", "device", "history", "history_category", "history_behaviour",
    }  # fmt: skip
    assert set(names["item"]) == {"item_id", "category", "size", "price", "text"}
    assert max(manifest["parity"]["user_tower"], manifest["parity"]["item_tower"]) < 1e-4
    ask = ("ckpt_path=run", "paths.data_dir=.", "k=5", "format=json", "context={device: phone}")
    for user in ("u7", "a new one"):
        answer = script("recommend", *ask, f"user_id={user}")
        assert answer.returncode == 0, answer.stderr
        assert len(json.loads(answer.stdout)["found"]) == 5


@pytest.mark.exhaustive  # 8 minutes; each kind of data has a slow test of its own
def test_each_part_of_the_data_helps(script):
    make_shop().write_shop(script.folder, 50_000)
    found = {}
    for name, (change, *_) in {"all": ("seed=0", 1, ""), **PARTS}.items():
        run = script("train", *SHOP, *change.split(), f"hydra.run.dir={name}")
        assert run.returncode == 0, run.stderr
        found[name] = script.metrics(name)["test"]
    for name, (_, ratio, metric) in PARTS.items():
        assert found["all"][metric] > ratio * found[name][metric], (name, metric, found)
