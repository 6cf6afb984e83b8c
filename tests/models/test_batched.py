"""Operations for many models at once equal those of each model, gradients included."""

import pytest
import torch

from twotower.layers.batched import is_batched, sum_rows
from twotower.layers.embedding_table import mean_lookup
from twotower.layers.history.causal import attention
from twotower.losses.functional import softmax_cross_entropy

torch.manual_seed(0)
X = torch.randn(3, 6, 4, dtype=torch.double)
INDEX = torch.tensor([[[0, 2, 5], [0, 0, 0]], [[1, 1, 3], [4, 0, 0]], [[0, 0, 1], [5, 4, 3]]])
GROUP = torch.tensor([[0, 1, 1, 3, 0, 0], [2, 2, 2, 2, 2, 2], [3, 1, 0, 0, 1, 3]])
VISIBLE = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()


def self_attention(x):
    heads = x.view(1, 6, 2, 2).transpose(1, 2)  # (batch, heads, length, width)
    return attention(heads, 2 * heads, heads + 1, VISIBLE, 0.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, index, group: mean_lookup(index, x),
        lambda x, index, group: sum_rows(x, group, 4),
        lambda x, index, group: softmax_cross_entropy(x, group),
        lambda x, index, group: self_attention(x),
    ],
    ids=["mean_lookup", "sum_rows", "softmax_cross_entropy", "attention"],
)
def test_batched_equals_single(function):
    def value_and_gradient(call):
        x = X.clone().requires_grad_()
        value = call(x)
        (value * torch.arange(value.numel()).view_as(value)).sum().backward()
        return value.detach(), x.grad

    batched = value_and_gradient(lambda x: torch.vmap(function)(x, INDEX, GROUP))
    single = value_and_gradient(
        lambda x: torch.stack([function(*one) for one in zip(x, INDEX, GROUP, strict=True)])
    )
    for ours, theirs in zip(batched, single, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_only_tensors_inside_vmap_are_batched():
    assert not is_batched(X)
    torch.vmap(lambda x: x if is_batched(x) else pytest.fail("not batched"))(X)
