"""A model in its data's export, without a training run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_data
from tests.models.test_models import build
from twotower.data.batches.present import present_features, present_seen
from twotower.data.splits import Temporal
from twotower.export.folder import Measure, write_export
from twotower.export.index import Flat
from twotower.export.tables import encode_items
from twotower.retrieval.exact import top_k

MEASURE = Measure(num_users=40, k=5, seed=0, tolerance=1e-4)
BLOCKED = "import sys\nfor name in ('torch', 'twotower', 'polars', 'hydra'):\n    sys.modules[name] = None\n"


def about(data):
    return {"model": "m", "data": "d", "data_note": "", "data_fingerprint": data.fingerprint, "metrics": {"test": None}}


def export_model(name, data, folder, *overrides, index=None, user_vectors=False):
    model = build(name, data, *overrides)
    index = index or Flat()
    record = write_export(folder, about(data), model, data, index, user_vectors, MEASURE, lambda stage: None)
    return build(name, data, *overrides), record


def serve(folder: Path, users: list, k: int) -> list[list]:
    """What the README's example returns, in a process of its own that has neither torch nor this project."""
    (example,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    ask = f"import json\nprint(json.dumps([recommend(user, {k}) for user in {users!r}]))\n"
    run = subprocess.run([sys.executable, "-c", BLOCKED + example + ask], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@torch.no_grad()
def exact(model, data, k: int) -> tuple[list, np.ndarray]:
    """Raw ids and scores of each user's best unseen items by PyTorch, users as they are now."""
    users = torch.arange(data.meta["num_users"])
    seen = present_seen(data, users)
    row = torch.repeat_interleave(users, torch.tensor([len(items) for items in seen]))
    score, item = top_k(model.encode_user(present_features(data, users)), encode_items(model, data), row, torch.cat(seen), k)
    raw = data.ids["item"]["item"].to_list()
    return [[raw[index] for index in row] for row in item.tolist()], score.numpy()


def assert_same_lists(served, items, scores):
    """The same scores place by place; the same items wherever no other has as good as the same score."""
    assert len(served) == len(items)
    for found, wanted, score in zip(served, items, scores, strict=True):
        assert np.isfinite(score).all()
        np.testing.assert_allclose([value for _, value in found], score, rtol=1e-5, atol=1e-6)
        gap = np.abs(np.diff(score)) > 1e-5 * np.abs(score).max()
        clear = np.concatenate([[True], gap]) & np.concatenate([gap, [False]])  # the last may tie with the next one
        for place in np.flatnonzero(clear):
            assert found[place][0] == wanted[place]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    data = make_data(folder, split=Temporal(0.05, 0.2, 0))  # 27 of 60 users and 19 of 40 items are known to training
    data.setup()
    model, record = export_model("dat", data, folder / "export", user_vectors=True)
    return folder / "export", data, model, record
