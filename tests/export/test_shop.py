"""The made-up shop: towers that read all kinds of features at once agree with the exported ones."""

import numpy as np
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.models import build
from tests.helpers.shop import make_shop
from tests.helpers.table import reader
from twotower.data.batches.present import present_features
from twotower.data.splits import Temporal
from twotower.export.towers import Tower, as_inputs, fix_cold_rows, write_tower

KINDS = {
    "user": {
        "user_hash": "multi", "town": "categorical", "budget": "categorical",
        "device": "categorical", "weekday": "categorical", "history": "history",
        "history_category": "event", "history_behaviour": "event", "history_time_gap": "event",
        "history_item_hash": "event",
    },
    "item": {
        "item_hash": "multi", "category": "categorical", "size": "categorical",
        "price": "categorical", "text": "vector",
    },
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    make_shop().write_shop(tmp_path / "raw", 3000)
    files = {"interactions": "clicks.parquet", "users": "users.csv", "items": "items.parquet"}
    own = reader(
        **files,
        item_vectors={"text": "text.npy"},
        item_columns={"item": None, "category": "kind", "title": "title"},
        columns__behaviour="event",
        columns__weight="trust",
        columns__shown="beside",
        behaviours=["view", "purchase"],
        context={"device": "categorical"},
    )
    found = make_data(
        tmp_path,
        own,
        split=Temporal(0.9, 0.95, 1, "first"),
        duplicates="all",
        hashed={"user_id": 50, "item_id": 60},
        numeric_buckets=10,
        clock_context=["weekday"],
        history_features=["category", "behaviour", "time_gap", "item_hash"],
    )
    found.setup()
    return found


def test_exported_towers_take_all_features_together(data, tmp_path):
    model = build("two_tower", data, "model/history=transformer").eval()
    for name, parameter in model.named_parameters():
        if ".events." in name:  # zeros until they are trained
            torch.nn.init.normal_(parameter)
    fix_cold_rows(model)
    users = torch.arange(data.meta["num_users"])
    position = data.tables["offset"][users + 1] - 1  # the last event, whose context is known
    sides = {
        "user": as_inputs(data.user_features(position, users)),
        "item": as_inputs(data.item_features(torch.arange(data.schema.num_items))),
    }
    for side, given in sides.items():
        exported = write_tower(Tower(model, side, given), given, tmp_path)
        features = getattr(data.schema, side)
        described = exported.describe(features)["inputs"]
        assert {entry["name"]: entry["kind"] for entry in described} == KINDS[side]
        with torch.no_grad():
            expected = (model.encode_user if side == "user" else model.encode_item)(given).numpy()
        np.testing.assert_allclose(exported(given), expected, atol=1e-5)
        for name in KINDS[side]:  # each of them counts
            changed = {**given, name: given[name].roll(1, 0)}
            if (changed[name] == given[name]).all():
                changed[name] = torch.zeros_like(given[name])
            found = exported(changed)
            with torch.no_grad():
                encode = model.encode_user if side == "user" else model.encode_item
                again = encode(changed).numpy()
            np.testing.assert_allclose(found, again, atol=1e-5)
            assert abs(found - expected).max() > 1e-4, name


def test_a_step_of_training_has_all_of_them(data):
    from twotower.data.sampling import Mixed, Uniform
    from twotower.data.shown_negatives import Shown

    data.negatives = Mixed(Shown(4, True, 2.0), Uniform(8, False))
    batch = data.train_batch(next(iter(data.train_dataloader())))
    assert set(batch.user) == {"user_id", *KINDS["user"]}
    assert set(batch.item) == {"item_id", *KINDS["item"]}
    assert batch.negative.shape == (16, 12) and batch.negative_weight.tolist() == [2] * 4 + [1] * 8
    assert set(batch.behaviour.tolist()) <= {0, 1} and len(batch.weight.unique()) == 2
    # an advertisement has no page: its given negatives are copies of itself
    is_advert = batch.weight < batch.weight.max()
    own = (batch.negative[:, :4] == batch.positive[:, None]).all(1)
    assert torch.equal(own, is_advert)


def test_users_today_do_not_know_the_request(data):
    found = present_features(data, torch.arange(5))
    assert found["device"].tolist() == [0] * 5 and (found["history"] > 0).any()
