"""Towers without layers and with a sum beside them, and how a model's weights start."""

import pytest
import torch

from tests.helpers.models import build, first_batch
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.layers.mlp import Tower

SAME_WIDTH = ("model.embedding_dim=6", "model.dim=6")
ROW = (*SAME_WIDTH, "model.tower=identity", "model.hidden_dims=[]", "model.normalize=false")


def tower(kind, hidden_dims=(), num_augmented=0, normalize=False):
    return Tower(4, list(hidden_dims), 2, "relu", "none", normalize, 0, kind, num_augmented)


def test_towers_by_hand():
    x = torch.tensor([[1.0, 2, 30, 40]])
    assert tower("identity")(x).tolist() == [[31, 42]]
    assert list(tower("identity").parameters()) == []
    residual = tower("residual", num_augmented=2)
    assert residual(x).tolist() == [[1, 2]]  # starts as the sum of the features alone
    with torch.no_grad():
        residual.layers[0].weight.copy_(torch.tensor([[1.0, 0, 0.5, 0], [0, 0, 0, 0.1]]))
    assert residual(x).tolist() == [[1 + 16, 2 + 4]]
    assert tower("residual", [3])(x).tolist() == [[31, 42]]
    torch.testing.assert_close(
        tower("identity", normalize=True)(x), torch.tensor([[31.0, 42]]) / 2725**0.5
    )


def test_the_layers_of_a_residual_tower_learn(data):
    model = build("dat", data, *SAME_WIDTH, "model.tower=residual", "model.hidden_dims=[]")
    batch = first_batch(data, Uniform(3, False))
    features = model.user_embedding(batch.user).unflatten(1, (-1, 6)).sum(1)
    towers = model(batch)
    torch.testing.assert_close(towers.user, torch.nn.functional.normalize(features, dim=1))
    (towers.user[:, None] * towers.item).square().sum().backward()
    assert model.user_tower.layers[0].weight.grad[:, -6:].abs().sum() > 0  # also of a_u


def test_an_item_is_its_own_row(data):
    """As in SASRec: no layer on either side, one table for histories and items."""
    model = build(
        "two_tower",
        data,
        *ROW,
        "model.share_item_table=true",
        "model.user_features=[history]",
        "model.item_features=[item_id]",
    )
    batch = first_batch(data, Uniform(3, False))
    (weight,) = model.parameters()
    towers = model(batch)
    torch.testing.assert_close(towers.item, weight[batch.item["item_id"]])
    index = batch.user["history"]
    known = (index > 0)[:, :, None]
    mean = (weight[index] * known).sum(1) / known.sum(1).clamp_min(1)
    torch.testing.assert_close(towers.user, mean)


def test_an_augmented_vector_is_a_summand(data):
    model, batch = build("dat", data, *ROW), first_batch(data, Uniform(3, False))
    towers = model(batch)
    rest = model.item_embedding(batch.item).unflatten(1, (-1, 6)).sum(1)
    torch.testing.assert_close(towers.item, rest + towers.item_augmented)


@pytest.mark.parametrize("kind", ["identity", "residual"])
@pytest.mark.parametrize("name", ["two_tower", "dat"])
def test_features_of_another_width_cannot_be_summed(name, kind, data):
    with pytest.raises(UserError, match="set model.embedding_dim=6"):
        build(name, data, f"model.tower={kind}", "model.embedding_dim=3", "model.dim=6")


def test_settings_without_effect_are_refused(data):
    with pytest.raises(UserError, match=r"set model.hidden_dims=\[\]"):
        build("two_tower", data, *ROW, "model.hidden_dims=[4]")
    with pytest.raises(UserError, match="set model.id_extra_dim=0"):
        build("two_tower", data, *ROW, "model.id_extra_dim=2")


@pytest.mark.parametrize("kind", ["identity", "residual"])
def test_a_sum_has_no_last_activation(kind, data):
    """With ReLU the last layer of a residual tower, which starts at zero, would stay there."""
    args = ("model.hidden_dims=[]", f"model.tower={kind}", "model.last_activation=relu")
    with pytest.raises(UserError, match="set model.last_activation=none"):
        build("dat", data, *SAME_WIDTH, *args)


def test_item_dropout_is_of_training_alone(data):
    model = build("two_tower", data, *ROW, "model.item_dropout=0.5")
    features = first_batch(data, Uniform(3, False)).item
    whole = model.eval().encode_item(features)
    dropped = model.train().encode_item(features)
    assert not torch.equal(whole, dropped)
    only_id = build("two_tower", data, *ROW, "model.item_features=[item_id]").eval()
    only_id.item_dropout.p = 0.5
    row, train_row = only_id.encode_item(features), only_id.train().encode_item(features)
    share = (train_row == 0).double().mean()
    assert 0.3 < share < 0.7
    torch.testing.assert_close(train_row[train_row != 0], 2 * row[train_row != 0])


def test_matrices_start_with_the_given_spread(data):
    torch.manual_seed(0)
    args = ("model/history=transformer", "model.tower=residual", *SAME_WIDTH)
    before = build("dat", data, *args, "model.hidden_dims=[4]").state_dict()
    torch.manual_seed(0)
    model = build("dat", data, *args, "model.hidden_dims=[4]", "model.init_std=0.02")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, before[name])
        elif name.endswith("tower.layers.2.weight"):
            assert not parameter.any()  # the last layer of a residual tower
        else:
            assert 0.01 < parameter.std() < 0.03, name
    table = "user_augmented.weight"
    torch.testing.assert_close(model.state_dict()[table], before[table] * 0.02 * 6**0.5)


def test_a_cold_row_stays_zero(data):
    args = ("model.cold_ids=trained", "model.id_dropout=0.1", "model.init_std=0.5")
    model = build("dat", data, *args)
    assert not model.user_augmented.weight[0].any()


@pytest.mark.parametrize("value", [0, -1, 11, "inf"])
def test_an_impossible_spread_is_named(value, data):
    with pytest.raises(UserError, match="model.init_std"):
        build("dat", data, f"model.init_std={value}")
