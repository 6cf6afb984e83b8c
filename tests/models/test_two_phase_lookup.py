"""A row-sparse table is read once a step; outputs and gradients are those of separate lookups."""

import sys
from contextlib import nullcontext

import pytest
import torch

from tests.helpers.models import MODELS, build
from twotower.data.sampling import Uniform
from twotower.distributed.fetching import Request, fetch, fetched_together
from twotower.layers import feature_embedding


def step(name, data, batch, together, monkeypatch):
    settings = ["model.share_item_table=true"] if name in ("two_tower", "youtube_dnn") else []
    if name == "youtube_dnn":
        settings += ["model.embedding_dim=16", "model.dim=16"]
    torch.manual_seed(0)
    model = build(name, data, *settings).double().train()
    tables = [weight for weight in model.parameters() if getattr(weight, "is_table", False)]
    if not tables:
        pytest.skip(f"{name} reads its tables without twotower.layers")
    for weight in tables:
        weight.row_sparse = True
    with monkeypatch.context() as patch:
        if not together:
            for module in (sys.modules[type(model).__module__], feature_embedding):
                patch.setattr(module, "fetched_together", nullcontext, raising=False)
        towers = model(batch)
    (towers.user.sin().sum() + towers.item.cos().sum()).backward()
    gradients = {key: value.grad for key, value in model.named_parameters()}
    return towers, {key: value for key, value in gradients.items() if value is not None}


@pytest.mark.parametrize("name", sorted({*MODELS} - {"ials", "popularity"}))
def test_the_same_as_separate_lookups(name, data, monkeypatch):
    data.negatives = Uniform(3, False)
    batch = data.train_batch(next(iter(data.train_dataloader())))
    batch = batch._replace(behaviour=torch.zeros_like(batch.positive))
    (towers, found), (apart, expected) = (
        step(name, data, batch, together, monkeypatch) for together in (True, False)
    )
    torch.testing.assert_close(towers.user, apart.user, rtol=0, atol=1e-12)
    torch.testing.assert_close(towers.item, apart.item, rtol=0, atol=1e-12)
    assert found.keys() == expected.keys()
    sparse = [key for key, value in found.items() if value.is_sparse]
    assert sparse
    for key, value in found.items():
        assert value.is_sparse == expected[key].is_sparse, key
        if value.is_sparse:  # each row once, and no other rows than those of separate lookups
            assert value._nnz() == expected[key].coalesce()._nnz(), key
        torch.testing.assert_close(value.to_dense(), expected[key].to_dense(), msg=key)


def test_lookups_within():
    weight = torch.nn.Parameter(torch.arange(20.0).view(10, 2))
    ids, history = torch.tensor([7, 3, 7]), torch.tensor([[0, 3], [9, 3]])
    requests = [Request(weight, ids), Request(weight, history, padded=True)]
    with fetched_together(requests):  # a dense table is read as ever
        assert fetch(ids, weight)[1] is weight
    weight.row_sparse = True
    with torch.no_grad(), fetched_together(requests):
        assert fetch(ids, weight)[1] is weight
    with fetched_together(requests):
        index, rows = fetch(ids, weight)
        assert rows.shape == (3, 2) and rows[index].tolist() == weight[ids].tolist()
        places, padded = fetch(history, weight, padded=True)
        assert (places > 0).tolist() == [[False, True], [True, True]]
        assert padded[places].tolist() == [[[0, 0], [6, 7]], [[18, 19], [6, 7]]]
        index, rows = fetch(torch.tensor([3, 9]), weight)  # another tensor of requested ids
        assert rows[index].tolist() == [[6, 7], [18, 19]]
        for missing in (5, 8):
            with pytest.raises(RuntimeError, match="ids that were not requested"):
                fetch(torch.tensor([missing]), weight)
    with fetched_together([Request(weight, ids[:0])]), pytest.raises(RuntimeError):
        fetch(ids, weight)
    inner = fetched_together([Request(weight, torch.tensor([1]))])
    with fetched_together(requests), inner:  # the outer one stays
        assert fetch(ids, weight)[1].shape == (3, 2)
    assert fetch(ids, weight)[1] is weight
