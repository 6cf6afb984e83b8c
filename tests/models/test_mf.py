"""Matrix factorisation: the score and its bias."""

import pytest
import torch

from tests.helpers.models import first_batch
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.models.mf import MF


@pytest.mark.parametrize("item_bias", [False, True])
def test_score_is_the_inner_product_plus_the_bias(item_bias, data):
    model, batch = MF(data.schema, 3, item_bias, 0.5, "mean"), first_batch(data, Uniform(3, False))
    if item_bias:
        assert (model.item_factors.weight[:, 3] == 0).all()  # all items start alike
        torch.nn.init.normal_(model.item_factors.weight)
    user, item = model.user_factors.weight, model.item_factors.weight
    towers = model(batch)
    scores = towers.user @ towers.item.T
    for row, u in enumerate(batch.user["user_id"].tolist()):
        for column, v in enumerate(batch.item["item_id"].tolist()):
            expected = sum(user[u, f] * item[v, f] for f in range(3)) + (
                item[v, 3] if item_bias else 0
            )
            assert scores[row, column].item() == pytest.approx(expected.item(), abs=1e-5)


def test_initial_factors_have_the_standard_deviation_of_the_setting(data):
    model = MF(data.schema, 64, False, 0.01, "mean")
    assert model.user_factors.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.item_factors.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_impossible_settings_are_refused(data):
    with pytest.raises(UserError, match=r"model\.dim"):
        MF(data.schema, 0, False, 0.1, "mean")
    with pytest.raises(UserError, match=r"model\.cold_ids"):
        MF(data.schema, 4, False, 0.1, "trained")
