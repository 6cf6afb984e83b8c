"""HSTU's blocks by NumPy in float64."""

import numpy as np
import pytest
import torch

from tests.conftest import make_data
from tests.helpers.exporting import export_model
from tests.helpers.history import arrays, linear, row_by_row, shaken, sigmoid
from tests.helpers.models import build, first_batch
from tests.helpers.retriever import make_retriever
from twotower.data.batches import features
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.layers.history import HSTU
from twotower.layers.history.hstu import bucket

DIM, LENGTH = 4, 5


def make(positions="start", times=False):
    torch.manual_seed(3)
    encoder = shaken(HSTU(DIM, LENGTH, 2, 2, 0.0, positions, "sqrt_dim", None, times))
    return encoder, torch.randn(9, DIM, dtype=torch.float64)


def normed(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def silu(x):
    return x * sigmoid(x)


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("positions", ["start", "relative", "none"])
def test_equals_numpy(positions, times):
    encoder, weight = make(positions, times)
    p, moment = arrays(encoder), [1_000_000_000, 1_000_086_400, 1_000_086_400]
    x = 2 * weight.numpy()[[5, 2, 7]]  # dim 4
    x = x + p["position"][:3] if positions == "start" else x
    for block in ("blocks.0", "blocks.1"):
        bias = p.get(f"{block}.distance", np.zeros((1, LENGTH)))[0]
        u, v, q, k = np.split(silu(normed(x) @ p[f"{block}.inputs.weight"].T), 4, axis=1)
        read = np.zeros_like(x)
        for place in range(3):
            for head in (slice(0, 2), slice(2, 4)):
                for other in range(place + 1):
                    score = q[place, head] @ k[other, head] + bias[place - other]
                    if times:
                        # log(86,400) / .301 is 37.7
                        same_day = place == other or other == 1
                        score += p[f"{block}.time"][0 if same_day else 37, 0]
                    read[place, head] += silu(score) / LENGTH * v[other, head]
        x = x + linear(u * normed(read), p, f"{block}.output")
    index, given = torch.tensor([[0, 0, 5, 2, 7]]), (torch.tensor([[9, 9, *moment]]),) * times
    np.testing.assert_allclose(encoder(index, weight, *given)[0].detach(), x[-1], rtol=1e-9)
    places = encoder.places(index, weight, *given)[0, 2:].detach()
    np.testing.assert_allclose(places, x, rtol=1e-9)


@pytest.mark.parametrize("positions", ["start", "relative", "none"])
def test_places_are_those_of_single_rows(positions):
    encoder, weight = make(positions)
    index = torch.randint(1, 9, (23, LENGTH)) * (torch.arange(LENGTH) >= torch.randint(6, (23, 1)))
    expected = row_by_row(encoder, index, weight)
    torch.testing.assert_close(encoder.places(index, weight), expected, rtol=0, atol=1e-10)


def test_wrong_settings_are_refused():
    for name, settings in (("num_heads", (1, 3, 0.5)), ("dropout", (1, 1, 1.0))):
        with pytest.raises(UserError, match=f"model.history.{name}"):
            HSTU(DIM, LENGTH, *settings, "end", "none", 0.0, False)
    with pytest.raises(UserError, match="model.history.embedding_dropout must be"):
        HSTU(DIM, LENGTH, 1, 1, 0.5, "end", "none", 1.0, False)


def test_buckets_by_hand():
    """ln(2) / .301 is 2.3, and a century has fewer than 128 buckets."""
    assert bucket(torch.tensor([0, 1, -2, 60, 3_155_760_000])).tolist() == [0, 0, 2, 13, 72]


@pytest.mark.parametrize("num", [3, 300])  # more are read in passes of similar lengths
def test_times_follow_their_items(num):
    """Gaps in a history and the passes move an item's time with it."""
    encoder, weight = make("relative", times=True)
    index = torch.randint(0, 9, (num, 8))  # 0 anywhere
    time = torch.randint(10**9, (num, 8)).cumsum(1)
    found = encoder(index, weight, time)
    for row in range(0, num, 37):
        known = index[row] > 0
        alone = encoder(index[row, known][None], weight, time[row, known][None])
        torch.testing.assert_close(found[[row]], alone)


@pytest.fixture
def timed(tmp_path):
    data = make_data(tmp_path, history_times=True)
    data.setup()
    return data


def test_histories_have_the_times_of_their_items(timed):
    tables, schema, length = timed.tables, timed.schema, timed.options.history_length
    position = tables["position/train"].long()
    user = tables["interactions/user"][position].long()
    args = (tables, schema, length, position, user)
    single = features.user_features(*args, features.history)
    shared = features.user_features(*args, features.sequences)
    known = single["history"] > 0
    before = position[:, None] + torch.arange(-length, 0)
    assert torch.equal(single["history_time"][known], tables["interactions/time"][before[known]])
    assert single["history_time"].dtype == torch.int64 and known.sum() > 200
    place = shared["history"]
    last = shared["history_time"][place.row, place.place]
    assert torch.equal(last[known[:, -1]], single["history_time"][known[:, -1], -1])


def test_a_tower_reads_times(timed, data):
    settings = ("model/history=hstu", "model.history.times=true")
    model = build("two_tower", timed, *settings)
    batch = first_batch(timed, Uniform(3, False))
    model.train()(batch).user.square().sum().backward()
    encoder = model.user_embedding.embeddings[-1].encoder
    assert all((block.time.grad != 0).any() for block in encoder.blocks)
    with pytest.raises(UserError, match="needs data.history_times=true"):
        model(first_batch(data, Uniform(3, False)))


def test_a_retriever_needs_times_of_new_users(timed):
    settings = ("model/history=hstu", "model.history.times=true")
    retriever = make_retriever(timed, "two_tower", *settings)
    user, item = timed.ids["user"]["user"][0], timed.ids["item"]["item"][0]
    assert len(retriever.recommend(user, 3)) == len(retriever.recommend_history([], 3)) == 3
    assert retriever.reads_history  # asked by src/recommend.py history=[]
    with pytest.raises(UserError, match="reads the times of a history"):
        retriever.recommend_history([item], 3)


def test_a_tower_that_reads_times_is_not_exported(timed, tmp_path):
    settings = ("model/history=hstu", "model.history.times=true")
    with pytest.raises(UserError, match="exported towers take no times"):
        export_model("two_tower", timed, tmp_path / "export", *settings)
    assert not (tmp_path / "export").exists()
