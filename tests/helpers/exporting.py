"""Exports of models that were not trained."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from tests.helpers.models import build
from tests.helpers.retriever import INFO
from twotower.data.batches.present import present_features, present_seen
from twotower.export.card import about_data
from twotower.export.folder import Measure, write_export
from twotower.export.index import Flat
from twotower.export.towers import OnnxTower, as_inputs
from twotower.retrieval.exact import encode_corpus, top_k
from twotower.serve.retriever import Retriever
from twotower.types import EvalIndex

MEASURE = Measure(num_users=40, k=5, seed=0, tolerance=1e-4)

BLOCKED = """
import sys
for name in ("torch", "twotower", "polars", "hydra"):
    sys.modules[name] = None
"""


def about(data):
    return {
        "model": "m",
        "data": "d",
        "data_note": "",
        "data_fingerprint": data.fingerprint,
        "dataset": about_data(data),
        "exported": "2026-11-28",
        "overrides": [],
        "seed": 0,
        "metrics": {"test": None},
    }


def quiet(text):
    """Print nothing of an export's progress."""


def encode_corpus_items(model, data):
    """``(num_items, dim)``."""
    with torch.no_grad():
        return encode_corpus(model, data.corpus(CPU), data.schema.num_items)


def export_model(name, data, folder, *overrides, index=None, user_vectors=False):
    model = build(name, data, *overrides)
    index = index or Flat()
    record = write_export(
        folder, about(data), model, data, index, user_vectors, MEASURE, quiet, quiet
    )
    return build(name, data, *overrides), record


def serve(folder: Path, users: list, k: int, function: str = "recommend") -> list[list]:
    """Results of the README's code in a process that can import neither torch nor twotower."""
    example, new_user = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    ask = f"import json\nprint(json.dumps([{function}(user, {k}) for user in {users!r}]))\n"
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED + example + new_user + ask],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def serve_new(model, data, folder: Path, k: int) -> None:
    """Check the README's code for new users against a retriever, histories of several lengths."""
    retriever = Retriever(data, model, INFO)
    items = retriever.items.raw.to_list()
    histories = [[], items[:1], items[3:6], [items[-1], *items[:9], items[-1]]]
    wanted = [retriever.recommend_history(history, k) for history in histories]
    assert_same_lists(
        serve(folder, histories, k, "recommend_new"),
        [found["item"].to_list() for found in wanted],
        np.array([found["score"].to_list() for found in wanted]),
    )


@torch.no_grad()
def exact(model, data, k: int) -> tuple[list, np.ndarray]:
    """Raw ids and scores of each user's best unseen items, computed by PyTorch."""
    users = torch.arange(data.meta["num_users"])
    seen = present_seen(data, users)
    row = torch.repeat_interleave(users, torch.tensor([len(items) for items in seen]))
    score, item = top_k(
        model.encode_user(present_features(data, users)),
        encode_corpus_items(model, data),
        row,
        torch.cat(seen),
        k,
    )
    raw = data.ids["item"]["item"].to_list()
    return [[raw[index] for index in row] for row in item.tolist()], score.numpy()


def assert_same_lists(served, items, scores):
    """Check scores place by place, and items where no other item has nearly the same score."""
    assert len(served) == len(items)
    for found, wanted, score in zip(served, items, scores, strict=True):
        assert np.isfinite(score).all()
        np.testing.assert_allclose([value for _, value in found], score, rtol=1e-5, atol=1e-6)
        gap = np.abs(np.diff(score)) > 1e-5 * np.abs(score).max()
        # the last may have the same score as the first that is not listed
        clear = np.concatenate([[True], gap]) & np.concatenate([gap, [False]])
        for place in np.flatnonzero(clear):
            assert found[place][0] == wanted[place]


CPU = torch.device("cpu")


def check_parity(model, record, folder, data):
    """Check both towers on batches of 1, 2 and many rows, with ids that training never saw."""
    assert record["parity"]["user_tower"] < 1e-6 and record["parity"]["item_tower"] < 1e-6
    position, num = data.tables["position/test"].long(), data.tables["targets/test"].long()
    user = {
        name: value
        for name, value in data.eval_batch(EvalIndex(position, num)).user.items()
        if name != "latent"
    }
    item = {name: value for name, value in next(data.corpus(CPU)).items() if name != "latent"}
    user["user_id"][:3], item["item_id"][:3] = 0, 0
    for side, features in (("user", as_inputs(user)), ("item", as_inputs(item))):
        tower = OnnxTower(folder / f"{side}_tower.onnx")
        with torch.no_grad():
            wanted = (model.encode_user if side == "user" else model.encode_item)(features).numpy()
        for rows in (slice(0, 1), slice(1, 3), slice(0, None)):
            found = tower({name: value[rows] for name, value in features.items()})
            np.testing.assert_allclose(found, wanted[rows], rtol=1e-5, atol=1e-6)
