"""The transformer's settings, each by NumPy in float64, and all places in one pass."""

import numpy as np
import pytest
import torch

from tests.helpers.history import arrays, attend, gelu, linear, norm, row_by_row, shaken
from twotower.errors import UserError
from twotower.layers.history import Transformer
from twotower.layers.history.causal import by_distance

DIM, LENGTH = 4, 5
SETTINGS = {
    "default": {},
    "post": {"block": "post", "network_ratio": 3, "activation": "gelu"},
    "sasrec": {"block": "sasrec"},
    "start": {"positions": "start"},
    "relative": {"positions": "relative", "block": "post"},
    "none": {"positions": "none", "activation": "gelu"},
    "sqrt_dim": {"input_scale": "sqrt_dim"},
    "layer_norm": {"input_scale": "layer_norm", "block": "post"},
}


def make(settings, length=LENGTH):
    torch.manual_seed(3)
    encoder = shaken(Transformer(DIM, length, 2, 2, 0.0, **settings))
    return encoder, torch.randn(9, DIM, dtype=torch.float64)


def reference(p, item, block="pre", activation="relu", positions="end", input_scale="none", **_):
    """Two blocks, two heads of width 2."""
    x = item * 2 if input_scale == "sqrt_dim" else item  # dim 4
    if positions == "end":
        x = x + p["position"][: len(x)][::-1]  # the last item stands at position 0
    elif positions == "start":
        x = x + p["position"][: len(x)]
    x = norm(x, p, "input_norm") if input_scale == "layer_norm" else x
    for name in ("blocks.0", "blocks.1"):

        def network(x, name=name):
            inner = linear(x, p, f"{name}.network.0")
            inner = gelu(inner) if activation == "gelu" else inner.clip(min=0)
            return linear(inner, p, f"{name}.network.3")

        first, second = f"{name}.attention_norm", f"{name}.network_norm"
        if block == "pre":
            x = x + attend(norm(x, p, first), norm(x, p, first), p, name, 2)
            x = x + network(norm(x, p, second))
        elif block == "post":
            x = norm(x + attend(x, x, p, name, 2), p, first)
            x = norm(x + network(x), p, second)
        else:
            query = norm(x, p, first)
            x = norm(query + attend(query, x, p, name, 2), p, second)
            x = x + network(x)
    return x if block == "post" else norm(x, p, "norm")


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_numpy(name):
    encoder, weight = make(SETTINGS[name])
    expected = reference(arrays(encoder), weight.numpy()[[5, 2, 7]], **SETTINGS[name])
    index = torch.tensor([[0, 0, 5, 2, 7]])
    np.testing.assert_allclose(encoder(index, weight)[0].detach(), expected[-1], rtol=1e-10)
    if SETTINGS[name].get("positions", "end") == "end":  # for earlier places it counts otherwise
        places = encoder.places(index, weight)[0].detach()
        np.testing.assert_allclose(places[2:], expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["start", "relative", "none"])
@pytest.mark.parametrize("passes", [0, 10**6])
def test_places_are_those_of_single_rows(name, passes, monkeypatch):
    """Also for the last items of longer histories, and in any number of passes."""
    monkeypatch.setattr("twotower.layers.history.base.PADDING_ALIKE", passes)
    encoder, weight = make(SETTINGS[name])
    longer = torch.randint(1, 9, (23, 8))
    longer *= torch.arange(8) >= torch.randint(9, (23, 1))  # padding on the left, rows of 0 too
    index = longer[:, -LENGTH:]
    places = encoder.places(index, weight)
    torch.testing.assert_close(places, row_by_row(encoder, index, weight), rtol=0, atol=1e-10)
    torch.testing.assert_close(places[:, -1], encoder(longer, weight), rtol=0, atol=1e-10)


def test_passes_change_no_place_and_no_gradient(monkeypatch):
    encoder, weight = make(SETTINGS["relative"])
    index = torch.randint(1, 9, (23, LENGTH)) * (torch.arange(LENGTH) >= torch.randint(6, (23, 1)))

    def run(padding):
        monkeypatch.setattr("twotower.layers.history.base.PADDING_ALIKE", padding)
        encoder.zero_grad()
        table = weight.clone().requires_grad_()
        output = encoder.places(index, table)
        (output * torch.arange(output.numel()).view_as(output)).sum().backward()
        return [output.detach(), table.grad, *(p.grad.clone() for p in encoder.parameters())]

    torch.testing.assert_close(run(0), run(10**6))


class Everything(torch.nn.Module):
    """The vector of the last place, and those of all places."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, index, weight):
        last, places = self.encoder(index, weight), self.encoder.places(index, weight)
        return torch.cat([last[:, None], places], 1)


@pytest.mark.parametrize("name", SETTINGS)
def test_many_models_at_once_equal_each(name):
    """Under vmap, where attention is written out and nothing branches on data."""
    encoder, weight = make(SETTINGS[name])
    model = Everything(encoder)
    index = torch.tensor([[0, 0, 5, 2, 7], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
    indices = torch.stack([index, index.flip(0)])  # of two models
    names = [name for name, _ in model.named_parameters()]

    def encode(parameters, index):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(model, given, (index, weight))

    def output_and_gradients(call):
        many = [torch.stack([p, 2 * p]).detach().requires_grad_() for p in model.parameters()]
        output = call(many)
        (output * torch.arange(output.numel()).view_as(output)).sum().backward()
        return [output.detach(), *(parameter.grad for parameter in many)]

    single = output_and_gradients(
        lambda many: torch.stack([encode([p[i] for p in many], indices[i]) for i in (0, 1)])
    )
    batched = output_and_gradients(lambda many: torch.vmap(encode)(many, indices))
    torch.testing.assert_close(batched, single, rtol=1e-10, atol=1e-10)


def test_a_setting_has_the_parameters_it_needs_and_no_others():
    def names(**settings):
        encoder = Transformer(DIM, LENGTH, 1, 2, 0.0, **settings)
        return {name: tuple(parameter.shape) for name, parameter in encoder.named_parameters()}

    plain = names()
    assert plain["position"] == (5, 4) and plain["blocks.0.network.0.weight"] == (4, 4)
    assert names(network_ratio=4)["blocks.0.network.0.weight"] == (16, 4)
    norm = {"norm.weight": (4,), "norm.bias": (4,)}
    assert names(block="post").items() == plain.items() - norm.items()
    without = plain.items() - {("position", (5, 4))}
    assert names(positions="none").items() == without
    assert names(positions="relative").items() == without | {("blocks.0.distance", (2, 5))}
    scaled = {"input_norm.weight": (4,), "input_norm.bias": (4,)}
    assert names(input_scale="layer_norm").items() == plain.items() | scaled.items()
    assert names(block="sasrec", positions="start", input_scale="sqrt_dim") == plain


def test_distances_by_hand():
    """Of the last two of three places; a later place has the value of distance 0."""
    values = torch.tensor([[1.0, 2.0, 3.0, 9.0]])
    assert by_distance(values, 2, 3).tolist() == [[[2.0, 1.0, 1.0], [3.0, 2.0, 1.0]]]


def test_embeddings_have_a_dropout_of_their_own():
    index, weight = torch.tensor([[1, 2, 3, 4, 5]]), torch.randn(9, DIM)
    torch.manual_seed(0)
    alone = Transformer(DIM, LENGTH, 1, 1, 0.0, embedding_dropout=0.5)
    assert not torch.equal(alone(index, weight), alone(index, weight))
    none = Transformer(DIM, LENGTH, 1, 1, 0.5, embedding_dropout=0.0)
    assert none.dropout.p == 0 and none.blocks[0].dropout.p == 0.5
    assert Transformer(DIM, LENGTH, 1, 1, 0.5).dropout.p == 0.5


@pytest.mark.parametrize(
    "name, value",
    [
        ("block", "bert"),
        ("activation", "silu"),
        ("positions", "back"),
        ("input_scale", 2),
        ("embedding_dropout", 1.0),
        ("network_ratio", 0),
    ],
)
def test_unknown_settings_are_refused(name, value):
    with pytest.raises(UserError, match=f"model.history.{name} must be"):
        Transformer(DIM, LENGTH, 1, 1, 0.5, **{name: value})


def test_places_of_more_items_than_it_reads_are_refused():
    encoder, weight = make({}, length=3)
    with pytest.raises(UserError, match="set model.history.length=4"):
        encoder.places(torch.tensor([[1, 2, 3, 4]]), weight)
