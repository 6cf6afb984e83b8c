"""History encoders: what each computes, by NumPy in float64, and what all promise."""

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.helpers.history import arrays, row_by_row, sigmoid
from tests.helpers.models import TWO_TOWER, build, first_batch
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.layers.history import GRU, HSTU, Attention, BSARec, LiGR, Mean, Transformer
from twotower.layers.history.base import known_last
from twotower.models.two_tower import TwoTower

DIM, LENGTH = 4, 5
ENCODERS = {
    "mean": lambda: Mean(),
    "attention": lambda: Attention(DIM),
    "gru": lambda: GRU(DIM, 0.0),
    "transformer": lambda: Transformer(DIM, LENGTH, 2, 2, 0.0),
    "transformer_post": lambda: Transformer(
        DIM, LENGTH, 2, 2, 0.0, "post", 4, "gelu", "relative", "layer_norm"
    ),
    "bsarec": lambda: BSARec(DIM, LENGTH, 2, 2, 0.0, 0.7, 3, "end"),
    "hstu": lambda: HSTU(DIM, LENGTH, 2, 2, 0.0, "end", "none", None, False),
    "ligr": lambda: LiGR(DIM, LENGTH, 2, 2, 0.0, 4, "end", "none"),
}


def make(name):
    torch.manual_seed(3)
    return ENCODERS[name]().double().eval(), torch.randn(9, DIM, dtype=torch.float64)


def encode(name, rows):
    encoder, weight = make(name)
    return encoder(torch.tensor(rows), weight).detach()


def test_every_option_is_tested():
    assert sorted(ENCODERS) == sorted(
        path.stem for path in (ROOT / "conf" / "model" / "history").glob("*.yaml")
    )


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_and_unknown_items_change_nothing(name):
    full = encode(name, [[0, 0, 3, 1, 2], [0, 3, 0, 1, 2], [3, 1, 0, 2, 0]])
    torch.testing.assert_close(full[0].expand(3, -1), full)
    torch.testing.assert_close(encode(name, [[3, 1, 2]])[0], full[0])


@pytest.mark.parametrize("name", ENCODERS)
def test_an_empty_history_is_zero_and_trains_nothing(name):
    encoder, weight = make(name)
    weight.requires_grad_()
    output = encoder(torch.tensor([[0] * LENGTH, [0, 0, 0, 2, 1]]), weight)
    assert (output[0] == 0).all() and (output[1] != 0).any()
    output[0].sum().backward()
    assert (weight.grad == 0).all() and all(
        p.grad is None or (p.grad == 0).all() for p in encoder.parameters()
    )


@pytest.mark.parametrize("name", ENCODERS)
def test_order_matters_only_to_sequence_encoders(name):
    forth, back = encode(name, [[0, 0, 1, 2, 3], [0, 0, 2, 1, 3]])
    assert torch.allclose(forth, back) == (name in ("mean", "attention"))


@pytest.mark.parametrize("passes", [0, 10**6])
@pytest.mark.parametrize("name", ENCODERS)
def test_places_are_those_of_single_rows(name, passes, monkeypatch):
    """For positions that make no difference, and in any number of passes."""
    monkeypatch.setattr("twotower.layers.history.base.PADDING_ALIKE", passes)
    encoder, weight = make(name)
    if hasattr(encoder, "position"):
        torch.nn.init.zeros_(encoder.position)
    index = torch.randint(1, 9, (23, LENGTH))
    index *= torch.arange(LENGTH) >= torch.randint(LENGTH + 1, (23, 1))  # padding on the left
    expected = row_by_row(encoder, index, weight)
    torch.testing.assert_close(encoder.places(index, weight), expected, rtol=0, atol=1e-10)


def test_places_of_attention_stay_finite_for_any_scores():
    encoder, weight = make("attention")
    with torch.no_grad():
        encoder.query.mul_(1e6)  # exp(score) overflows
    index = torch.tensor([[0, 5, 2, 7, 1]])
    expected = row_by_row(encoder, index, weight)
    torch.testing.assert_close(encoder.places(index, weight), expected)
    assert expected.isfinite().all()


def test_known_last():
    assert known_last(torch.tensor([[1, 0, 2, 0], [0, 0, 0, 0]])).tolist() == [
        [0, 0, 1, 2],
        [0, 0, 0, 0],
    ]


def test_mean_by_hand():
    weight = torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]])
    assert Mean()(torch.tensor([[0, 1, 2], [0, 0, 2]]), weight).tolist() == [[2.0, 4.0], [3.0, 6.0]]


def test_attention_equals_numpy():
    encoder, weight = make("attention")
    p, item = arrays(encoder), weight.numpy()[[5, 2, 7]]
    score = np.exp(np.tanh(item @ p["key.weight"].T + p["key.bias"]) @ p["query"])
    np.testing.assert_allclose(
        encode("attention", [[0, 0, 5, 2, 7]])[0], (score / score.sum()) @ item
    )


def test_gru_equals_numpy():
    encoder, weight = make("gru")
    p, state = arrays(encoder.gru), np.zeros(DIM)
    for x in weight.numpy()[[5, 2, 7]]:  # gates in the order reset, update, new
        a = x @ p["weight_ih_l0"].T + p["bias_ih_l0"]
        b = state @ p["weight_hh_l0"].T + p["bias_hh_l0"]
        reset, update = sigmoid(a[:DIM] + b[:DIM]), sigmoid(a[DIM : 2 * DIM] + b[DIM : 2 * DIM])
        new = np.tanh(a[2 * DIM :] + reset * b[2 * DIM :])
        state = (1 - update) * new + update * state
    np.testing.assert_allclose(encode("gru", [[0, 0, 5, 2, 7]])[0], state)


def test_transformer_passes_by_length_change_nothing(monkeypatch):
    """Vectors and gradients are the same, in the given order, for any size of the parts."""
    encoder, weight = make("transformer")
    index = torch.randint(9, (23, LENGTH))
    index[4], index[5, :-1] = 0, 0

    def run(rows_alike):
        monkeypatch.setattr("twotower.layers.history.base.ROWS_ALIKE", rows_alike)
        table = weight.clone().requires_grad_()
        output = encoder(index, table)
        (output * torch.arange(output.numel()).view_as(output)).sum().backward()
        return output.detach(), table.grad

    whole, parted = run(23), run(4)
    assert len(whole[0]) == 23 and (whole[0][4] == 0).all()
    torch.testing.assert_close(parted, whole)


def test_a_shorter_transformer_reads_the_last_items():
    encoder, weight = Transformer(DIM, 3, 1, 1, 0.0), torch.randn(9, DIM)
    longer, last = (
        torch.tensor([[1, 2, 3, 4, 0], [0, 0, 0, 5, 6]]),
        torch.tensor([[2, 3, 4], [0, 5, 6]]),
    )
    torch.testing.assert_close(encoder(longer, weight), encoder(last, weight))


def test_embeddings_are_dropped_too():
    """With the rate of nothing else above zero."""
    torch.manual_seed(0)
    encoder, weight, index = (
        Transformer(DIM, LENGTH, 1, 1, 0.0),
        torch.randn(9, DIM),
        torch.tensor([[1, 2, 3, 4, 5]]),
    )
    encoder.dropout.p = 0.5
    assert not torch.equal(encoder(index, weight), encoder(index, weight))


@pytest.mark.parametrize(
    "encoder", [GRU(DIM, 0.5), Transformer(DIM, LENGTH, 1, 1, 0.5)], ids=["gru", "transformer"]
)
def test_dropout_is_only_in_training(encoder):
    torch.manual_seed(0)
    weight, index = torch.randn(9, DIM), torch.tensor([[1, 2, 3, 4, 5]])
    assert not torch.equal(encoder.train()(index, weight), encoder(index, weight))
    assert torch.equal(encoder.eval()(index, weight), encoder(index, weight))


def test_attention_weights_are_dropped_too():
    torch.manual_seed(0)
    encoder, weight, index = (
        Transformer(DIM, LENGTH, 1, 1, 0.5),
        torch.randn(9, DIM),
        torch.tensor([[1, 2, 3, 4, 5]]),
    )
    for part in encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    assert not torch.equal(encoder(index, weight), encoder(index, weight))


@pytest.mark.parametrize(
    "model",
    ["dat", *(pytest.param(name, marks=pytest.mark.slow) for name in ("two_tower", "youtube_dnn"))],
)
@pytest.mark.parametrize("name", ENCODERS)
def test_every_tower_takes_every_encoder(model, name, data):
    built, batch = build(model, data, f"model/history={name}"), first_batch(data, Uniform(3, False))
    built.train()(batch).user.square().sum().backward()
    encoder = next(
        part.encoder for part in built.user_embedding.embeddings if hasattr(part, "encoder")
    )
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert {type(encoder).__name__.lower()} == {name.split("_")[0]}


@pytest.mark.parametrize("name", ["dat", "two_tower", "youtube_dnn"])
def test_share_item_table_uses_the_item_tower_s_table(name, data):
    batch = first_batch(data, Uniform(3, False))
    for shared in (False, True):
        model = build(name, data, f"model.share_item_table={str(shared).lower()}")
        with torch.no_grad():
            before = model.encode_user(batch.user)
            model.item_embedding.embeddings[0].weight.add_(
                torch.randn_like(model.item_embedding.embeddings[0].weight)
            )
        assert torch.equal(before, model.encode_user(batch.user)) != shared
    assert model.item_embedding.names[0] == "item_id"


def test_sharing_needs_both_sides(data):
    for changes in ({"user_features": ["user_id"]}, {"item_features": ["brand"]}):
        with pytest.raises(UserError, match="model.share_item_table"):
            TwoTower(data.schema, **{**TWO_TOWER, "share_item_table": True, **changes})


def test_impossible_transformers_are_refused():
    with pytest.raises(UserError, match="model.history.num_heads=3 must divide"):
        Transformer(4, 5, 1, 3, 0.0)
    with pytest.raises(UserError, match="data.history_length"):
        Transformer(4, 0, 1, 2, 0.0)
