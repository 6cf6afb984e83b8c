"""``src/export.py`` as its users run it."""

import json

import polars as pl
import pytest
import torch

from tests.helpers.exporting import serve
from twotower.export import packages

SMALL = (
    "data.reader.num_users=120",
    "data.reader.num_items=60",
    "data.reader.interactions_per_user=10",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.diagnostics=null",
    "hydra.run.dir=run",
)
BEST = "ckpt_path=run/checkpoints/best.ckpt"


def test_train_export_check(script, monkeypatch):
    run = script("train", *SMALL, "model=mf", "model.dim=8")
    assert run.returncode == 0, run.stderr
    run = script("export", BEST, "index=hnsw", "index.ef_search=32", "parity.num_users=50")
    assert run.returncode == 0, run.stderr
    assert "index hnsw: 0 MiB in memory" in run.stderr
    assert "hnsw, as exported" in run.stdout and "efSearch=128" in run.stdout
    record = json.loads((script.folder / "run/export/manifest.json").read_text())
    assert (
        record["metrics"]["test"] == script.metrics("run")["test"]
        and record["index"]["settings"]["ef_search"] == 32
    )
    assert record["model"] == "mf" and len(record["parity"]["curve"]) == 6
    readme = (script.folder / "run/export/README.md").read_text()
    assert "index.hnsw.efSearch = max(32, k + len(seen))\n    scores, rows" in readme
    (found,) = serve(script.folder / "run/export", [[]], 50, "recommend_new")
    assert len(found) == 50 > 32
    name, test = "ndcg@10", record["metrics"]["test"]
    half = record["half_width"][name]
    val, popular = record["metrics"]["val"][name], record["popularity"][name]
    row = f"| {name} | {val:.4f} | {test[name]:.4f} ± {half:.4f} | {popular:.4f} |"
    assert row in readme
    ranks = pl.read_parquet(script.folder / "run/test_ranks.parquet")["rank"]  # one per user
    gains = (ranks <= 10) / (1 + ranks).log(2)
    assert half == pytest.approx(1.96 * gains.std() / len(gains) ** 0.5)
    for line in (
        f"{record['dataset']['users']} users, {record['dataset']['items']} items",
        "split `LeaveLastOut` (min_history=1): Each user's last interaction is for test",
        "k_core=5",
        f"exported on {record['exported']}",
        "Trained with `data.reader.num_users=120 ",
        f"torch {torch.__version__.partition('+')[0]}",
        "This model reads no history",
    ):
        assert line in readme
    assert (script.folder / "run/export/recall_latency.png").stat().st_size > 10_000
    assert script("export", "check=run/export").returncode == 0
    again = script("export", "ckpt_path=run")
    assert again.returncode == 1 and "exported already" in again.stderr
    for path, message in {
        "run/checkpoints/none.ckpt": "there is no such file",
        "run/metrics.json": "cannot be read as a checkpoint",
    }.items():
        wrong = script("export", f"ckpt_path={path}", "output=other")
        assert wrong.returncode == 1 and message in wrong.stderr
    typo = script("export", BEST, "+forse=true", "output=other")
    assert typo.returncode == 1 and "unknown setting forse" in typo.stderr
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name: None if name == "faiss" else True
    )
    missing = script("export", BEST, "output=other")
    assert (
        missing.returncode == 1
        and "faiss not installed: pip install 'twotower[export]'" in missing.stderr
    )
    assert not (script.folder / "other").exists()


def test_a_checkpoint_of_other_data_is_refused(script, monkeypatch):
    run = script("train", *SMALL, "model=popularity")
    assert run.returncode == 0, run.stderr
    path = script.folder / "run/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["twotower"]["fingerprint"] = "another"
    torch.save(checkpoint, path)
    other = script("export", BEST)
    assert (
        other.returncode == 1
        and "the checkpoint was trained on other data (fingerprint another" in other.stderr
    )
    assert not (script.folder / "run/export").exists()


@pytest.mark.parametrize(
    "setting", ["parity.k=0", "parity.num_users=1.5", "force=maybe", "index.m=1"]
)
def test_wrong_settings_are_named(script, setting):
    run = script("export", BEST, *(["index=hnsw"] if "index" in setting else []), setting)
    assert run.returncode == 1 and setting.split("=")[0] in run.stderr
