"""MIND: routing by loops in NumPy, the number of interests, label-aware attention."""

import numpy as np
import pytest
import torch

from tests.helpers.losses import make_batch
from tests.helpers.models import build, first_batch
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.layers.history.base import known_last
from twotower.models.mind import items_needed, squash

SMALL = (
    "model.dim=4",
    "model.hidden_dims=[5]",
    "model.num_interests=2",
    "model.num_iterations=3",
    "data.history_length=6",
)


def make(data, *overrides):
    return build("mind", data, *SMALL, *overrides).double()


def numpy_routing(items, bilinear, logits, num_interests, steps):
    c, b = items @ bilinear, logits.copy()  # (length, dim), (length, interests)
    for _ in range(steps):
        capsules = []
        w = np.exp(b) / np.exp(b).sum(1, keepdims=True)  # over interests
        for k in range(num_interests):
            z = sum(w[i, k] * c[i] for i in range(len(c)))
            norm = np.linalg.norm(z)
            capsules.append(norm**2 / (1 + norm**2) * z / norm)
        b = b + np.array([[capsule @ vector for capsule in capsules] for vector in c])
    return np.array(capsules)


@pytest.mark.parametrize("history", [[0, 3, 1, 2, 7, 5], [9, 3, 1, 2, 7, 5], [3, 0, 1, 2, 0, 7]])
def test_routing_equals_numpy(history, data):
    model = make(data)
    item = [i for i in history if i]
    table = model.item_embedding.embeddings[0].weight.detach().numpy()
    places = model.first_logits.numpy()[-len(item) :]  # each place counts from the end
    expected = numpy_routing(table[item], model.bilinear.detach().numpy(), places, 2, 3)
    found = model.route(torch.tensor([history])).detach()[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(expected[0], expected[1])


def test_a_shorter_length_reads_the_last_items(data):
    model = make(data, "model.length=3")
    longer, last = torch.tensor([[9, 3, 1, 2, 0, 5]]), torch.tensor([[1, 2, 5]])
    torch.testing.assert_close(model.route(longer), model.route(last))
    batch = first_batch(data, Uniform(2, False))
    short = batch._replace(
        user={**batch.user, "history": known_last(batch.user["history"])[:, -3:]}
    )
    torch.testing.assert_close(model(batch).user, model(short).user)


def test_the_number_of_interests_follows_the_history():
    # log2 of 0, 1, 3, 4, 7, 8, 100 items, between 1 and 4, rounded down: 1, 1, 1, 2, 2, 3, 4
    mask = torch.tensor([0, 1, 3, 4, 7, 8, 100])[:, None] >= items_needed(4)
    assert mask.sum(1).tolist() == [1, 1, 1, 2, 2, 3, 4] and mask[:, 0].all()


def test_missing_interests_repeat_the_first_and_get_no_weight(data):
    model = make(data)
    short = model.encode_user({"history": torch.tensor([[0, 0, 0, 1, 2, 3]])})[0]
    torch.testing.assert_close(short[0], short[1])
    table, one = model.item_embedding.embeddings[0].weight, model.bilinear
    expected = squash((table[[1, 2, 3]] @ one).sum(0))  # all of each item goes to the one interest
    torch.testing.assert_close(model.route(torch.tensor([[0, 0, 0, 1, 2, 3]]))[0, 0], expected)


def test_squash_by_hand():
    # (3, 4): norm 5: 25 / 26 of the unit vector (.6, .8)
    assert squash(torch.tensor([3.0, 4.0])).tolist() == pytest.approx(
        [0.6 * 25 / 26, 0.8 * 25 / 26], rel=1e-5
    )
    zero = torch.zeros(2, requires_grad=True)
    squash(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_label_aware_attention(data):
    """Weights are scores of the positive: power 0 gives the mean, a large one the best."""
    batch = first_batch(data, Uniform(3, False))
    for power, choose in (
        (0.0, lambda s: np.full(2, 0.5)),
        (1e6, lambda s: np.eye(2)[s.argmax()]),
        (3.0, None),
    ):
        model = build("mind", data, "model.num_interests=2", f"model.attention_power={power}")
        towers, interest = model(batch), model.encode_user(batch.user).detach().numpy()
        for row in range(16):
            score = interest[row] @ towers.item[batch.positive[row]].detach().numpy()
            weight = choose(score) if choose else np.exp(3 * score) / np.exp(3 * score).sum()
            np.testing.assert_allclose(
                towers.user[row].detach().numpy(), weight @ interest[row], atol=1e-5
            )


def test_attention_ignores_missing_interests(data):
    """Five items give two of four interests; the others repeat the first, which counts once."""
    model = build(
        "mind", data, "data.history_length=6", "model.num_interests=4", "model.attention_power=3"
    )
    history = torch.tensor([[0, 3, 1, 2, 7, 5]])
    batch = make_batch([0], num_draws=[1])._replace(
        user={"history": history}, item={"item_id": torch.tensor([4])}
    )
    towers, interest = model(batch), model.encode_user(batch.user)[0].detach().numpy()
    score = interest[:2] @ towers.item[0].detach().numpy()
    weight = np.exp(3 * score) / np.exp(3 * score).sum()
    assert not np.allclose(interest[0], interest[1], atol=0.1)
    np.testing.assert_allclose(towers.user[0].detach().numpy(), weight @ interest[:2], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_empty_history_is_finite_in_half_precision(dtype, data):
    model, batch = (
        build("mind", data, "data.history_length=6").train(),
        make_batch([0, 0], num_draws=[2]),
    )
    history = torch.tensor([[0] * 6, [0, 3, 1, 2, 7, 5]])
    with torch.autocast("cpu", dtype=dtype):
        towers = model(
            batch._replace(user={"history": history}, item={"item_id": torch.tensor([4])})
        )
    towers.user.float().sum().backward()
    assert towers.user.isfinite().all() and all(
        parameter.grad.isfinite().all() for parameter in model.parameters()
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_items_are_normalised_if_interests_are(normalize, data):
    model, batch = (
        build("mind", data, f"model.normalize={str(normalize).lower()}"),
        first_batch(data, Uniform(3, False)),
    )
    rows = model.item_embedding.embeddings[0].weight[batch.item["item_id"]]
    expected = rows / rows.norm(dim=1, keepdim=True) if normalize else rows
    torch.testing.assert_close(model.encode_item(batch.item), expected)
    length = model.encode_user(batch.user).norm(dim=2)
    assert torch.allclose(length, torch.ones_like(length), atol=1e-5) == normalize


def test_other_features_enter_every_interest(data):
    model, batch = (
        build("mind", data, "model.user_features=[segment]"),
        first_batch(data, Uniform(3, False)),
    )
    other = {**batch.user, "segment": batch.user["segment"].roll(1)}
    before, after, changed = (
        model.encode_user(batch.user),
        model.encode_user(other),
        other["segment"] != batch.user["segment"],
    )
    assert changed.any() and torch.equal(before[~changed], after[~changed])
    assert (before[changed] != after[changed]).any(2).all()


def test_a_history_is_needed(data):
    with pytest.raises(UserError, match=r"data\.history_length"):
        make(data, "data.history_length=0")
    with pytest.raises(UserError, match=r"model\.user_features"):
        make(data, "model.user_features=[history]")
