"""Features of the events in a history: category, behaviour and the time between events."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.frames import KEEP_ALL, make_frames
from tests.helpers.models import build
from tests.helpers.retriever import make_retriever
from tests.helpers.table import trained_hit_rates
from twotower.data.batches import features
from twotower.data.prepare.events import time_gaps
from twotower.data.prepare.prepare import prepare
from twotower.errors import UserError
from twotower.layers.feature_embedding import HistoryEmbedding
from twotower.layers.history import Mean
from twotower.types import Feature

ALL = ["category", "behaviour", "time_gap"]


def test_time_gaps_by_hand():
    moments, user = [0, 1, 4, 4, 4 + 2**20, 10, 10**12], [0, 0, 0, 0, 0, 1, 1]
    order = (np.array(moments), np.array(user))
    # gaps 1, 3, 0 and 2**20 seconds: 1 + log2(2), 1 + log2(4), 1 + log2(1), 1 + 20, at most 32
    assert time_gaps(*order, "s").tolist() == [0, 2, 3, 1, 21, 0, 32]
    assert time_gaps(*order, "ms").tolist()[:5] == [0, 1, 1, 1, 11]
    with pytest.raises(UserError, match="time_gap needs times"):
        time_gaps(*order, "order")


def test_what_the_data_do_not_have():
    frames = make_frames([(1, item, item, 1.0) for item in range(5)])
    for name in ("category", "behaviour"):
        with pytest.raises(UserError, match=f"data.history_features={name}: these data have"):
            prepare(frames, KEEP_ALL._replace(history_features=(name,)))
    with pytest.raises(UserError, match="data.history_features needs a history"):
        KEEP_ALL._replace(history_features=("category",), history_length=0).check()
    items = {"item": range(5), "category": ["x"] * 5, "brand": ["b"] * 5, "price": [1.0] * 5}
    frames = make_frames([(1, item, item, 1.0) for item in range(5)], items=items)
    for name, message in (
        ("colour", "there is no such feature; choose from category, behaviour, time_gap, brand"),
        ("price", "it is numeric, and an event has labels .data.numeric_buckets makes"),
        ("item_id", "it is categorical"),
    ):
        with pytest.raises(UserError, match=f"data.history_features={name}: {message}"):
            prepare(frames, KEEP_ALL._replace(history_features=(name,)))
    assert "history_features" not in KEEP_ALL.plain()


@pytest.fixture
def data(tmp_path):
    found = make_data(tmp_path, history_features=["category", "time_gap"])
    found.setup()
    num = len(found.tables["interactions/item"])
    found.meta = {**found.meta, "behaviours": ["click", "purchase"]}
    found.tables["interactions/behaviour"] = (torch.arange(num) % 3 == 0).to(torch.uint8)
    extra = Feature("history_behaviour", "event", 3)
    found.schema = found.schema._replace(num_behaviours=2, user=(*found.schema.user, extra))
    return found


def test_events_against_plain_python(data):
    tables, length = data.tables, data.options.history_length
    position = tables["position/test"][:20].long()
    user = tables["interactions/user"][position].long()
    found = data.user_features(position, user)
    item = tables["interactions/item"]
    for row, end in enumerate(position.tolist()):
        for place in range(length):
            at = end - length + place
            values = [int(found[f"history_{name}"][row, place]) for name in ALL]
            if at < 0 or int(tables["interactions/user"][at]) != int(user[row]):
                assert values == [0, 0, 0]
                continue
            category = int(tables["category"][item[at].long()]) + 1
            gap = int(tables["interactions/time_gap"][at])
            assert values == [category, 1 + (at % 3 == 0), gap]
    assert found["history_time_gap"].max() > 1


def test_sequences_have_the_events_of_each_history(data):
    position = torch.arange(40, 90)
    user = data.tables["interactions/user"][position].long()
    position, user = position[user < 6], user[user < 6]
    single = data.user_features(position, user)
    shared = data.user_features(position, user, features.sequences)
    sequences, length = shared["history"], data.options.history_length
    for name in ALL:
        whole = shared[f"history_{name}"]
        for row in range(len(position)):
            place = int(sequences.place[row]) + 1
            own = whole[sequences.row[row], max(0, place - length) : place]
            expected = single[f"history_{name}"][row]
            assert own.tolist() == expected[length - len(own) :].tolist()


def test_embeddings_are_added_to_those_of_the_items():
    event = Feature("history_category", "event", 4)
    embedding = HistoryEmbedding(6, 3, Mean(), "none", [event])
    plain = HistoryEmbedding(6, 3, Mean())
    plain.load_state_dict(embedding.state_dict(), strict=False)
    history, category = torch.tensor([[0, 2, 5], [0, 0, 0]]), torch.tensor([[0, 1, 3], [0, 0, 0]])
    # they begin with zeros
    torch.testing.assert_close(embedding(history, category), plain(history))
    with torch.no_grad():
        embedding.events[0].copy_(torch.arange(12.0).view(4, 3))
    weight, events = embedding.table.weight, embedding.events[0]
    expected = (weight[2] + events[1] + weight[5] + events[3]) / 2
    found = embedding(history, category)
    torch.testing.assert_close(found[0], expected)
    assert found[1].tolist() == [0, 0, 0]
    found.sum().backward()
    assert embedding.events[0].grad.abs().sum(1).tolist() == [0, 1.5, 0, 1.5]
    assert weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2, 5]


def test_events_with_several_labels_have_their_mean():
    event = Feature("history_tags", "event", 4)
    embedding = HistoryEmbedding(6, 3, Mean(), "none", [event])
    with torch.no_grad():
        embedding.events[0].copy_(torch.arange(12.0).view(4, 3))
    history = torch.tensor([[0, 2, 5]])
    tags = torch.tensor([[[0, 0], [1, 0], [1, 3]]])
    weight, events = embedding.table.weight, embedding.events[0]
    expected = (weight[2] + events[1] + weight[5] + (events[1] + events[3]) / 2) / 2
    torch.testing.assert_close(embedding(history, tags)[0], expected)


def test_labels_of_the_items_join_their_events(tmp_path):
    found = make_data(tmp_path, hashed={"item_id": 20}, history_features=["item_hash", "category"])
    found.setup()
    num_items = found.schema.num_items
    brand = (torch.arange(num_items) % 3).int()
    found.tables["item/brand"] = brand
    found.schema = found.schema._replace(
        user=(*found.schema.user, Feature("history_brand", "event", 3))
    )
    position = found.tables["position/test"][:20].long()
    user = found.tables["interactions/user"][position].long()
    own = found.user_features(position, user)
    known = own["history"] > 0
    item = (own["history"] - 1).clamp_min(0).long()
    assert torch.equal(own["history_brand"], brand[item] * known)
    hashed = found.tables["item/item_hash"][item]
    assert hashed.shape == (20, found.options.history_length, 2)
    assert torch.equal(own["history_item_hash"], hashed * known[..., None])
    # a new user who is given by the same items has the same events, but for their behaviour
    model = make_retriever(found)
    row = int(known.sum(1).argmin())
    ids = model.items.raw[item[row][known[row]].numpy()].to_list()
    new = model.newcomer(ids).features
    for name in ("history", "history_brand", "history_item_hash", "history_category"):
        assert torch.equal(new[name][0].long(), own[name][row].long()), name
    assert torch.isfinite(model.user_vector(history=ids)).all()


@pytest.mark.parametrize("history", ["mean", "attention", "gru", "transformer", "bsarec", "ligr"])
def test_every_encoder_reads_them(data, history):
    model = build("two_tower", data, f"model/history={history}").eval()
    position = data.tables["position/test"][:8].long()
    own = data.user_features(position, data.tables["interactions/user"][position].long())
    names = [name for name, _ in model.named_parameters() if ".events." in name]
    assert len(names) == 3
    before = model.encode_user(own)
    for name in names:
        torch.nn.init.normal_(model.get_parameter(name))
    after = model.encode_user(own)
    assert not torch.allclose(before, after)
    other = {**own, "history_behaviour": own["history_behaviour"] * 0}
    assert not torch.allclose(after, model.encode_user(other))


def test_one_pass_over_sequences_equals_single_histories(data):
    settings = ("model/history=transformer", "model.history.positions=relative")
    model = build("two_tower", data, *settings).eval()
    for name, parameter in model.named_parameters():
        if ".events." in name:
            torch.nn.init.normal_(parameter)
    position = torch.arange(1, 1 + data.options.history_length)
    user = data.tables["interactions/user"][position].long()
    assert len(user.unique()) == 1  # no history is cut off
    single = data.user_features(position, user)
    shared = data.user_features(position, user, features.sequences)
    torch.testing.assert_close(model.encode_user(single), model.encode_user(shared))


def test_new_users_have_the_category_of_their_items(data):
    data.schema = data.schema._replace(user=data.schema.user[:-1])
    model = make_retriever(data, "two_tower")
    items = model.items.raw[:2].to_list()
    person = model.newcomer(items)
    category = data.tables["category"][:2] + 1
    assert person.features["history_category"][0, -2:].tolist() == category.tolist()
    assert person.features["history_time_gap"].sum() == 0
    assert len(model.recommend_history(items, 3)) == 3
    assert np.isfinite(model.user_vector(history=[]).numpy()).all()


def shop(folder, num_users=500, num_kinds=8, per_kind=10):
    """What is bought is of the kind that follows that of the last purchase; views are at random."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        kind = int(rng.integers(num_kinds))
        for time in range(14):
            buys = time >= 12 or rng.random() < 0.4
            if buys:
                kind = (kind + 1) % num_kinds
            shown = kind if buys else int(rng.integers(num_kinds))
            item = shown * per_kind + int(rng.integers(per_kind))
            rows.append((user, item, time, "buy" if buys else "view"))
    clicks = pl.DataFrame(rows, schema=["user", "item", "step", "event"], orient="row")
    clicks.write_csv(folder / "clicks.csv")
    items = pl.DataFrame({"item": range(num_kinds * per_kind)})
    items.with_columns(category="kind " + (pl.col("item") // per_kind).cast(pl.String)).write_csv(
        folder / "items.csv"
    )


@pytest.mark.slow
def test_the_behaviour_tells_which_event_counts(script):
    shop(script.folder)
    settings = [
        *("data.reader.items=items.csv", "data.duplicates=all", "data.mask_seen=false"),
        *("data.reader.behaviours=[view,buy]", "model=two_tower", "model/history=transformer"),
        *("model.user_features=[history]", "trainer.max_epochs=12", "data.history_length=12"),
    ]
    used = {"with": "[category,behaviour,time_gap]", "without": "null"}
    variants = {name: f"data.history_features={names}" for name, names in used.items()}
    found = trained_hit_rates(script, settings, variants)
    assert found["with"] > found["without"] + 0.25, found
    exported = script("export", "ckpt_path=with", "output=exported")
    assert exported.returncode == 0, exported.stderr
    folder = script.folder / "exported"
    manifest = json.loads((folder / "manifest.json").read_text())
    inputs = {entry["name"]: entry["kind"] for entry in manifest["schema"]["user_tower"]["inputs"]}
    assert inputs == {
        "history": "history", "history_category": "event", "history_behaviour": "event",
        "history_time_gap": "event",
    }  # fmt: skip
    assert manifest["parity"]["user_tower"] < 1e-4
    names = pl.read_parquet(folder / "vocabularies" / "user.history_behaviour.parquet")
    assert dict(names.rows()) == {"view": 1, "buy": 2}
    assert "1 + floor(log2(1 + seconds" in (folder / "README.md").read_text()
