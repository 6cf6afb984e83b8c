"""The factorisation machine against the sum over all pairs of fields, in NumPy."""

import itertools

import numpy as np
import pytest
import torch

from tests.helpers.models import first_batch
from twotower.data.sampling import Uniform
from twotower.models.fm import FM


def field_vectors(embedding, features, width):
    return embedding(features).detach().numpy().reshape(-1, len(embedding.names), width)


def make(data, item_pairs=True):
    torch.manual_seed(0)
    model, batch = (
        FM(data.schema, 3, item_pairs, 0.7, None, None, "mean"),
        first_batch(data, Uniform(3, False)),
    )
    model = model.double().eval()
    user, item = (
        {k: v.double() if v.is_floating_point() else v for k, v in f.items()}
        for f in (batch.user, batch.item)
    )
    return model, user, item


def test_score_sums_all_pairs_except_pairs_of_user_fields(data):
    model, user, item = make(data)
    x, y = field_vectors(model.user_factors, user, 3), field_vectors(model.item_factors, item, 3)
    weights = field_vectors(model.item_weights, item, 1)
    scores = (model.encode_user(user) @ model.encode_item(item).T).detach().numpy()
    assert x.shape[1] > 2 and y.shape[1] > 2
    for u, v in ((0, 0), (3, 7), (9, 2)):
        crossed = sum(a @ b for a in x[u] for b in y[v])
        own = sum(a @ b for a, b in itertools.combinations(y[v], 2))
        assert scores[u, v] == pytest.approx(crossed + own + weights[v].sum(), rel=1e-9)


def test_omitted_terms_are_the_same_for_all_items(data):
    """The whole machine of Eq. 1 less our score: one number per user."""
    model, user, item = make(data)
    x, y = field_vectors(model.user_factors, user, 3), field_vectors(model.item_factors, item, 3)
    weights = field_vectors(model.item_weights, item, 1)
    scores = (model.encode_user(user) @ model.encode_item(item).T).detach().numpy()
    for u in (0, 5):
        whole = [
            sum(a @ b for a, b in itertools.combinations([*x[u], *y[v]], 2)) + weights[v].sum()
            for v in range(len(y))
        ]
        assert np.ptp(np.array(whole) - scores[u]) < 1e-9


def test_item_pairs_is_a_setting(data):
    (model, _, item), (without, _, _) = make(data, True), make(data, False)
    y = field_vectors(model.item_factors, item, 3)
    own = np.array([sum(a @ b for a, b in itertools.combinations(fields, 2)) for fields in y])
    difference = (model.encode_item(item) - without.encode_item(item)).detach().numpy()
    np.testing.assert_allclose(difference[:, 3], own, atol=1e-9)
    assert np.abs(difference[:, :3]).max() == 0


def test_initial_factors_have_the_standard_deviation_of_the_setting(data):
    model = FM(data.schema, 64, True, 0.01, None, None, "mean")
    assert torch.cat(
        [parameter.flatten() for parameter in model.parameters()]
    ).std().item() == pytest.approx(0.01, rel=0.1)
