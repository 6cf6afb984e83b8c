"""What every model promises, and DAT's own parts."""

import re

import pytest
import torch

from tests.helpers.composition import compose_train
from tests.helpers.models import MODELS, TWO_TOWER, build, first_batch, make_dat
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.layers.embedding_table import EmbeddingTable, check_cold_ids, hide_ids
from twotower.layers.feature_embedding import FeatureEmbedding, MultiEmbedding
from twotower.layers.mlp import Tower
from twotower.models.popularity import Popularity
from twotower.models.two_tower import TwoTower
from twotower.types import Feature


@pytest.mark.parametrize("name", MODELS)
def test_forward_is_the_two_towers(name, data):
    model, batch = build(name, data), first_batch(data, Uniform(3, False))
    towers, user = model(batch), model.encode_user(batch.user)
    torch.testing.assert_close(towers.item, model.encode_item(batch.item))
    if user.dim() == 3:  # several interests, of which training makes one vector per row
        assert user.shape[::2] == towers.user.shape
    else:
        torch.testing.assert_close(towers.user, user)
    assert towers.user.shape == (16, towers.item.shape[1]) and len(towers.item) == len(
        batch.item_index
    )


@pytest.mark.parametrize("name", MODELS)
def test_towers_ignore_each_other_and_the_rest_of_the_batch(name, data):
    model, batch = build(name, data), first_batch(data, Uniform(3, False))
    half = {key: value[:8] for key, value in batch.user.items()}
    torch.testing.assert_close(model.encode_user(half), model.encode_user(batch.user)[:8])
    few = {key: value[:5] for key, value in batch.item.items()}
    torch.testing.assert_close(model.encode_item(few), model.encode_item(batch.item)[:5])


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name, data):
    model, batch = build(name, data).train(), first_batch(data, Uniform(3, False))
    if hasattr(model, "fit"):
        assert list(model.parameters()) == []  # fitted in closed form
        return
    towers = model(batch)
    (towers.user[:, None] * towers.item).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float64, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", MODELS)
def test_models_of_any_precision_accept_float32_data(name, dtype, data):
    """``trainer.precision=bf16-true`` and ``64-true``: numbers among the features stay float32."""
    assert "numeric" in {feature.kind for feature in data.schema.user}
    model, batch = build(name, data).to(dtype), first_batch(data, Uniform(3, False))
    assert model(batch).user.isfinite().all() and model.encode_item(batch.item).isfinite().all()


@pytest.mark.parametrize(
    "setting",
    ["model.dim=0", "model.embedding_dim=0", "model.embedding_dim=-1", "model.cold_ids=trained"],
)
@pytest.mark.parametrize("name", MODELS)
def test_impossible_settings_are_named(name, setting, data):
    key = setting.split("=")[0]
    if key.split(".")[1] not in compose_train(f"model={name}").model:
        return
    extra = ["model.user_features=[segment]"] if name == "mind" else []
    with pytest.raises(UserError, match=re.escape(key)) as caught:
        build(name, data, setting, *extra)
    cure = re.search(r"set model\.(\w+)", str(caught.value))
    assert (
        cure is None or cure[1] in compose_train(f"model={name}").model
    )  # no cure that the model does not have


def test_popularity_counts_training_interactions(data):
    model = Popularity(data.schema)
    interactions = data.train_interactions()
    model.fit(interactions)
    counts = torch.tensor(
        [(interactions.item == item).sum() for item in range(1, data.schema.num_train_items + 1)]
    )
    scores = torch.cat([model.encode_item(chunk) for chunk in data.corpus(torch.device("cpu"))])[
        :, 0
    ]
    torch.testing.assert_close(scores[: len(counts)], counts / counts.sum())
    assert (scores[len(counts) :] == 0).all()


def test_augmented_tables_are_separate_from_the_id_embeddings(data):
    model = make_dat(data.schema)
    a_u, e_u = (
        model.user_augmented.weight,
        model.user_embedding.embeddings[model.user_embedding.names.index("user_id")].weight,
    )
    assert a_u.data_ptr() != e_u.data_ptr() and len(a_u) == len(e_u)
    batch = first_batch(data, Uniform(3, False))
    first, again = model(batch), model(batch)
    assert torch.equal(first.user_augmented, again.user_augmented)  # parameters, not noise
    assert first.user_augmented.unique(dim=0).shape[0] > 1  # of each user, not one for everybody
    torch.testing.assert_close(first.user_augmented, a_u[batch.user["user_id"]])


def test_augmented_vectors_enter_their_own_tower(data):
    model, batch = make_dat(data.schema), first_batch(data, Uniform(3, False))
    before = model(batch)
    with torch.no_grad():
        model.user_augmented.weight += 1
    after = model(batch)
    assert not torch.allclose(before.user, after.user) and torch.equal(before.item, after.item)


def test_dat_equals_numpy(data):
    """Eq. 1 in NumPy: concatenated embeddings and ``a_u``, ReLU after every layer, L2."""
    model, batch = (
        make_dat(data.schema, last_activation="relu").double(),
        first_batch(data, Uniform(3, False)),
    )
    user = {
        name: value.double() if value.is_floating_point() else value
        for name, value in batch.user.items()
    }
    x = (
        torch.cat([model.user_embedding(user), model.user_augmented.weight[user["user_id"]]], 1)
        .detach()
        .numpy()
    )
    for layer in model.user_tower.layers:
        if isinstance(layer, torch.nn.Linear):
            x = (x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()).clip(min=0)
    norm = (x**2).sum(1, keepdims=True) ** 0.5
    expected = x / norm.clip(min=1e-6)
    assert (expected >= 0).all()
    torch.testing.assert_close(model.encode_user(user).detach(), torch.from_numpy(expected))


def test_a_dead_row_is_zero_and_has_no_gradient():
    tower = Tower(3, [], 4, "relu", "relu", True, 0.0)
    torch.nn.init.constant_(tower.layers[0].bias, -100)
    x = torch.randn(2, 3, requires_grad=True)
    tower(x).sum().backward()
    assert (tower(x) == 0).all() and (x.grad == 0).all()


def test_multi_valued_and_history_features_are_means_without_padding():
    table = MultiEmbedding(4, 2)
    table.weight.data = torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    assert table(torch.tensor([[1, 2, 0], [0, 3, 0], [0, 0, 0]])).tolist() == [
        [2.0, 4.0],
        [5.0, 5.0],
        [0.0, 0.0],
    ]


def test_cold_id_policies_by_hand():
    weight = torch.tensor([[9.0], [1.0], [3.0]])
    for policy, expected in (("mean", 2.0), ("zero", 0.0), ("trained", 9.0)):
        table = EmbeddingTable(3, 1, policy).eval()
        table.weight.data = weight.clone()
        assert table(torch.tensor([0, 1, 2]))[:, 0].tolist() == [expected, 1.0, 3.0]


def test_id_dropout_hides_the_id_from_both_tables(data):
    model = make_dat(data.schema, cold_ids="trained", id_dropout=0.9).train()
    batch = first_batch(data, Uniform(3, False))
    cold = (model(batch).user_augmented == model.user_augmented.weight[0]).all(1)
    assert cold.float().mean() > 0.5
    assert not (model.eval()(batch).user_augmented == model.user_augmented.weight[0]).all(1).any()
    hidden = hide_ids({"user_id": torch.ones(10_000, dtype=torch.long)}, "user_id", 0.3)["user_id"]
    assert (hidden == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("name", ["dat", "mvke", "two_tower", "youtube_dnn"])
def test_id_dropout_is_on_both_sides_and_only_in_training(name, data):
    model = build(
        name, data, "model.cold_ids=trained", "model.id_dropout=0.9", "model.user_features=null"
    )
    batch = first_batch(data, Uniform(3, False))
    plain, again, hidden = model(batch), model(batch), model.train()(batch)
    for side in ("user", "item"):
        assert torch.equal(getattr(plain, side), getattr(again, side))
        assert (getattr(plain, side) != getattr(hidden, side)).any(1).float().mean() > 0.5


@pytest.mark.parametrize(
    ("policy", "share"), [("trained", 0.0), ("mean", 0.1), ("zzz", 0.0), ("zero", 1.5)]
)
def test_impossible_cold_id_policies_are_refused(policy, share):
    with pytest.raises(UserError, match="model.cold_ids|model.id_dropout"):
        check_cold_ids(policy, share)


def test_feature_choice(data):
    model = TwoTower(data.schema, **{**TWO_TOWER, "user_features": ["history"]})
    assert model.user_embedding.output_dim == 5
    with pytest.raises(UserError, match=r"\['colour'\] not in the data; choose from \['user_id'"):
        FeatureEmbedding(data.schema.user, 4, ["colour"], "mean")
    with pytest.raises(UserError, match="the list is empty; choose from"):
        FeatureEmbedding(data.schema.user, 4, [], "mean")
    with pytest.raises(UserError, match=r"set data\.history_length"):
        FeatureEmbedding(data.schema.user[:1], 4, ["user_id", "history"], "mean")


@pytest.mark.parametrize(
    "changes", [{"last_activation": "rleu"}, {"hidden_dims": [0]}, {"dropout": 1.0}]
)
def test_impossible_towers_are_refused(data, changes):
    with pytest.raises(UserError, match="model\\."):
        TwoTower(data.schema, **{**TWO_TOWER, **changes})


def test_unknown_values_of_a_feature_have_their_own_row():
    """It starts at zero, so unseen values add no noise, and learns from missing values."""
    embedding = FeatureEmbedding((Feature("colour", "categorical", 3),), 2, None, "zero")
    unknown = embedding({"colour": torch.tensor([0])})
    assert (unknown == 0).all() and (embedding({"colour": torch.tensor([1, 2])}) != 0).all()
    unknown.sum().backward()
    assert embedding.embeddings[0].weight.grad.tolist() == [[1, 1], [0, 0], [0, 0]]
