"""MVKE: factorised and mixed scores are equal; experts and gates against NumPy."""

import numpy as np
import pytest
import torch

from tests.helpers.models import build, first_batch
from twotower.data.sampling import Uniform
from twotower.errors import UserError

SMALL = ("model.embedding_dim=6", "model.dim=4", "model.hidden_dims=[5]", "model.num_kernels=3")
TWO = (*SMALL, "model.objectives=[[0,1],[1,2]]", "model.retrieve=1")


def make(data, *overrides):
    model, batch = (
        build("mvke", data, *(overrides or (*SMALL, "model.objectives=[[0,1,2]]"))),
        first_batch(data, Uniform(3, False)),
    )
    user, item = (
        {k: v.double() if v.is_floating_point() else v for k, v in f.items()}
        for f in (batch.user, batch.item)
    )
    return model.double(), batch, user, item


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def numpy_experts(model, user):
    """Attention of every field and kernel, LayerNorm, then each kernel's tower, in loops."""
    p = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    x = model.user_embedding(user).detach().numpy()
    x = x.reshape(len(x), -1, 6)
    query = p["kernels"] @ p["query.weight"].T + p["query.bias"]
    key, value = x @ p["key.weight"].T, x @ p["value.weight"].T + p["value.bias"]
    experts = np.zeros((len(x), 3, 4))
    for k in range(3):
        attention = softmax(key @ query[k] / np.sqrt(6), 1)  # over the fields
        z = attention[..., None] * value + x
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * p[
            "norm.weight"
        ] + p["norm.bias"]
        hidden = (
            z.reshape(len(z), -1) @ p[f"experts.{k}.layers.0.weight"].T
            + p[f"experts.{k}.layers.0.bias"]
        )
        out = (
            hidden.clip(min=0) @ p[f"experts.{k}.layers.2.weight"].T
            + p[f"experts.{k}.layers.2.bias"]
        )
        experts[:, k] = out / np.linalg.norm(out, axis=1, keepdims=True)
    return experts


@pytest.mark.parametrize("kernels", [[0, 1, 2], [1, 2]])
def test_the_inner_product_is_the_mixed_score(kernels, data):
    model, _, user, item = make(data, *(() if len(kernels) == 3 else TWO))
    experts, w = numpy_experts(model, user), model.kernels.detach().numpy()
    v = model.item_tower(model.item_embedding(item)).detach().numpy()
    scores = (model.encode_user(user) @ model.encode_item(item).T).detach().numpy()
    for row in (0, 5):
        for column in (0, 3, 11):
            gate = softmax(w[kernels] @ v[column], 0)
            mixed = sum(
                g * experts[row, k] for g, k in zip(gate, kernels, strict=True)
            )  # Σ_k g_k u_k
            assert scores[row, column] == pytest.approx(mixed @ v[column], rel=1e-6)


def test_objectives_use_their_own_kernels_and_share_the_rest(data):
    model, batch, _, _ = make(data, *TWO)
    towers = model.float()(batch)
    first, second = (item.view(len(item), 3, 4) for item in towers.item_by_objective)
    assert (first[:, 2] == 0).all() and (second[:, 0] == 0).all()
    assert (first[:, :2] != 0).any(2).all() and (second[:, 1:] != 0).any(2).all()
    assert towers.item is towers.item_by_objective[1]  # model.retrieve


def test_diagnosis(data):
    model, _, user, item = make(data)
    torch.nn.init.zeros_(model.kernels)  # all gates are even: entropy log 3, each kernel a third
    found = model.diagnose(user, item)
    assert found["gate_entropy"].item() == pytest.approx(np.log(3))
    assert found["load"].tolist() == pytest.approx([1 / 3] * 3)


def test_diagnosis_of_uneven_gates(data):
    model, _, user, item = make(data)
    gate = softmax(
        model.item_tower(model.item_embedding(item)).detach().numpy()
        @ model.kernels.detach().numpy().T,
        1,
    )
    found = model.diagnose(user, item)
    np.testing.assert_allclose(found["load"].detach(), gate.mean(0), rtol=1e-6)
    assert found["gate_entropy"].item() == pytest.approx(-(gate * np.log(gate)).sum(1).mean())


def test_an_unknown_objective_to_retrieve_is_refused(data):
    with pytest.raises(UserError, match=r"model\.retrieve"):
        make(data, *TWO, "model.retrieve=2")


@pytest.mark.parametrize(
    "wrong",
    ["model.objectives=[[0,1]]", "model.objectives=[[0,1,2],[]]", "model.objectives=[[0,1,2,3]]"],
)
def test_objectives_that_miss_kernels_are_refused(wrong, data):
    with pytest.raises(UserError, match=r"model\.objectives"):
        make(data, *SMALL, wrong)
