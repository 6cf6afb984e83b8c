"""YouTubeDNN: the score by NumPy, and which tables it can share."""

import numpy as np
import pytest
import torch

from tests.helpers.models import build, first_batch
from twotower.data.sampling import Uniform
from twotower.errors import UserError


@pytest.mark.parametrize("normalize", [True, False])
def test_score_equals_numpy(normalize, data):
    """Mean of the history's embeddings, a ReLU and a linear layer, times each item's vector."""
    overrides = (
        "model.embedding_dim=5",
        "model.dim=4",
        "model.hidden_dims=[7]",
        f"model.normalize={str(normalize).lower()}",
    )
    model, batch = (
        build("youtube_dnn", data, *overrides).double(),
        first_batch(data, Uniform(3, False)),
    )
    p = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    table = p["user_embedding.embeddings.0.table.weight"]
    history = [[index for index in row if index] for row in batch.user["history"].tolist()]
    x = np.array([table[row].mean(0) if row else np.zeros(5) for row in history])
    x = (x @ p["user_tower.layers.0.weight"].T + p["user_tower.layers.0.bias"]).clip(min=0)
    user = x @ p["user_tower.layers.2.weight"].T + p["user_tower.layers.2.bias"]
    item = p["item_embedding.embeddings.0.weight"][batch.item["item_id"].numpy()]
    if normalize:
        user, item = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (user, item))
    towers = model(batch)
    np.testing.assert_allclose(
        (towers.user @ towers.item.T).detach(), user @ item.T, rtol=1e-6, atol=1e-9
    )
    assert torch.equal(towers.item, model.encode_item(batch.item))


def test_tables_of_different_widths_cannot_be_shared(data):
    with pytest.raises(UserError, match=r"set model\.embedding_dim=4"):
        build(
            "youtube_dnn",
            data,
            "model.embedding_dim=5",
            "model.dim=4",
            "model.share_item_table=true",
        )
