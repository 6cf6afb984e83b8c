"""Context of the request: from the user's files to what the user tower reads."""

import json
from datetime import datetime, timezone

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.frames import KEEP_ALL, make_frames
from tests.helpers.retriever import make_retriever
from tests.helpers.table import read, reader, trained_hit_rates
from twotower.data.batches import features
from twotower.data.card.figures import measure
from twotower.data.prepare.prepare import prepare
from twotower.errors import UserError

CLICKS = """user,item,time,device,price
1,a,1600000000,phone,1.5
1,b,1600003600,desk,2.5
1,c,1600090000,phone,3.5
2,a,1600000000,,4.5
2,c,1600010000,desk,1.25
2,b,1600020000,watch,2.0
"""


def test_columns_of_the_interactions_are_features_of_the_request(tmp_path):
    frames = read(tmp_path, CLICKS, context={"device": None, "price": None})
    assert frames.context_features == {"device": "categorical", "price": "numeric"}
    assert frames.interactions["context.device"].to_list()[2:4] == ["phone", None]
    codes = read(tmp_path, CLICKS, context={"price": "categorical"})
    assert codes.interactions["context.price"].to_list()[:2] == ["1.5", "2.5"]
    assert "context.device" not in codes.interactions.columns
    with pytest.raises(UserError, match="context: .*clicks.csv has no column devise; it has user"):
        read(tmp_path, CLICKS, context={"devise": None})
    with pytest.raises(UserError, match="context.device must be one of"):
        reader(interactions="clicks.csv", context={"device": "multi"})
    with pytest.raises(UserError, match="device=numeric holds text that is no number"):
        read(tmp_path, CLICKS, context={"device": "numeric"})
    words = CLICKS.replace("phone", "x").replace("desk", "x").replace("watch", "x")
    with pytest.raises(UserError, match="context: device cannot tell of a request .*one value"):
        read(tmp_path, words, context={"device": None})


def test_a_dropped_row_takes_its_context_along(tmp_path):
    gap = CLICKS.replace("1,b,", "1,,")
    frames = read(tmp_path, gap, context={"device": None}, drop_incomplete=True)
    device = ["phone", "phone", None, "desk", "watch"]
    assert frames.interactions["context.device"].to_list() == device


def world(**more):
    """Two users with four interactions: two to train, one to validate, one to test."""
    rows = [
        (user, 10 * (1 + time), time, f"{device}{user}" if device == "own" else device)
        for user in (2, 1)
        for time, device in enumerate(["b", "own", "a", "b"])
    ]
    frames = make_frames(rows, columns=("user", "item", "time", "context.device"))
    return frames._replace(context_features={"device": "categorical"}, **more)


def test_prepared_context_by_hand():
    prepared = prepare(world(), KEEP_ALL)
    # of training are b, own1 and own2; a is seen later only and so unknown; users 1 and 2
    assert prepared.encodings["user/device"]["value"].to_list() == ["b", "own1", "own2"]
    assert prepared.arrays["context/device"].tolist() == [1, 2, 0, 1, 1, 3, 0, 1]
    schema = prepared.meta["schema"]
    assert schema["context"] == ["device"] and ["device", "categorical", 4] in schema["user"]
    assert (
        "context"
        not in prepare(make_frames([(1, i, i, 1.0) for i in range(4)]), KEEP_ALL).meta["schema"]
    )
    twice = world()._replace(user_features={"device": "categorical"})
    twice = twice._replace(users=twice.users.with_columns(device=pl.lit("x")))
    with pytest.raises(UserError, match="context device: users have a feature of this name"):
        prepare(twice, KEEP_ALL)


def test_parts_of_the_clock_by_hand():
    moments = [datetime(2024, 2, 5, 23), datetime(2024, 2, 6, 0), datetime(2024, 3, 10, 7)]
    moments += [datetime(2024, 3, 10, 23)]
    seconds = [int(one.replace(tzinfo=timezone.utc).timestamp()) for one in moments]
    frames = make_frames([(1, item, time, 1.0) for item, time in enumerate(seconds)])
    options = KEEP_ALL._replace(clock_context=("hour", "weekday", "month"))
    with pytest.raises(UserError, match="data.clock_context needs times of a clock"):
        prepare(frames, options)
    found = prepare(frames._replace(time_unit="s"), options)
    # a Monday and a Tuesday of February are in training; 23 h is known there, March is not
    assert found.encodings["user/weekday"]["value"].to_list() == [1, 2]
    assert found.arrays["context/hour"].tolist() == [2, 1, 0, 2]
    assert found.arrays["context/weekday"].tolist() == [1, 2, 0, 0]
    assert found.arrays["context/month"].tolist() == [1, 1, 0, 0]
    assert "clock_context" not in KEEP_ALL.plain()
    with pytest.raises(UserError, match="data.clock_context must be one of"):
        options._replace(clock_context=("minute",)).check()


@pytest.fixture
def data(tmp_path):
    """Synthetic users with the weekday of each interaction."""
    found = make_data(tmp_path, clock_context=["weekday"])
    found.setup()
    return found


def test_each_target_has_its_own_context(data):
    context, user = data.tables["context/weekday"], data.tables["interactions/user"]
    assert len(context.unique()) > 3
    index = next(iter(data.test_dataloader()))
    batch = data.eval_batch(index)
    assert batch.user["weekday"].tolist() == context[index.position].tolist()
    # after the last interaction of a user it is unknown, not that of the next user
    last = torch.arange(3)
    end = data.tables["offset"][last + 1]
    assert (context[end] > 0).any()
    assert data.user_features(end, last)["weekday"].tolist() == [0, 0, 0]
    num = len(user)
    at_end = features.context(data.tables, "weekday", torch.tensor([num]), user[-1:].long())
    assert at_end.tolist() == [0]


def test_recommendations_take_the_context_of_the_request(data):
    model = make_retriever(data, "two_tower")
    user = model.users.raw[0]
    days = data.encodings["user/weekday"]["value"].to_list()
    vectors = [model.user_vector(user, context={"weekday": day}) for day in days[:2]]
    assert not torch.equal(*vectors)
    assert torch.equal(model.user_vector(user, context={"weekday": None}), model.user_vector(user))
    new = [model.user_vector(history=[], context={"weekday": day}) for day in days[:2]]
    assert not torch.equal(*new)
    person = model.person(user, "test")
    position = data.tables["position/test"][0]
    assert person.features["weekday"].tolist() == [int(data.tables["context/weekday"][position])]
    with pytest.raises(
        UserError, match="context: hour is no context of these data; there are week"
    ):
        model.recommend(user, context={"hour": 3})
    lists = [model.recommend(user, 20, context={"weekday": day})["score"] for day in days[:2]]
    assert not np.allclose(*lists)


def shop(folder, num_users=300, num_items=120):
    """On a phone people click the even items, on a desk the odd ones, each within a taste."""
    rng = np.random.default_rng(0)
    item = np.arange(num_items)
    rows = []
    for user in range(num_users):
        left = np.ones(num_items)
        for time in range(16):
            device = int(rng.integers(2))
            weight = left * (item % 2 == device) * np.where(item // 2 % 4 == user % 4, 10, 1)
            chosen = int(rng.choice(item, p=weight / weight.sum()))
            left[chosen] = 0
            rows.append((user, chosen, time, ("phone", "desk")[device]))
    clicks = pl.DataFrame(rows, schema=["user", "item", "step", "device"], orient="row")
    clicks.write_csv(folder / "clicks.csv")


@pytest.mark.slow
def test_the_device_tells_what_is_wanted(script):
    shop(script.folder)
    settings = ("data.reader.context={device: null}", "model=two_tower", "data.history_length=0")
    used = {"with": "user_id,device", "without": "user_id"}
    variants = {name: f"model.user_features=[{names}]" for name, names in used.items()}
    found = trained_hit_rates(script, settings, variants)
    assert found["with"] > found["without"] * 1.3, found
    ask = ("ckpt_path=with", "user_id=3", "k=8", "format=json")
    for place, device in enumerate(("phone", "desk")):
        answer = script("recommend", *ask, f"context={{device: {device}}}")
        assert answer.returncode == 0, answer.stderr
        items = [row["item"] for row in json.loads(answer.stdout)["found"]]
        assert sum(item % 2 == place for item in items) >= 6, (device, items)
    answer = script("recommend", *ask[:2])
    assert "of this request device is not known: give it, 'context={device: …}'" in answer.stdout
    lists = script("recommend", ask[0], "output=all.parquet", "context={device: desk}", "k=5")
    assert lists.returncode == 0, lists.stderr
    items = pl.read_parquet(script.folder / "all.parquet")["item"]
    assert (items % 2 == 1).mean() > 0.7
    exported = script("export", "ckpt_path=with", "output=exported")
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((script.folder / "exported" / "manifest.json").read_text())
    inputs = [entry["name"] for entry in manifest["schema"]["user_tower"]["inputs"]]
    readme = (script.folder / "exported" / "README.md").read_text()
    assert "`device`: of the request; `users.parquet` holds 0 (unknown)" in readme
    assert inputs == ["user_id", "device"] and manifest["parity"]["user_tower"] < 1e-5


def test_the_card_counts_gaps_over_interactions():
    options = KEEP_ALL
    card = measure(prepare(world(), options), options)
    rows = {row["name"]: row for row in card.figures["features"]["user"]}
    # all four training interactions have a device, and training knows 3 values
    assert rows["device"]["missing"] == 0 and rows["device"]["values"] == 3
