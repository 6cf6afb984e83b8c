"""Preparation on hand-made frames, and its promises on random worlds under every split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.frames import KEEP_ALL, make_frames
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.newcomers import from_values
from twotower.data.prepare.options import Options
from twotower.data.prepare.prepare import prepare
from twotower.data.splits import Given, LeaveLastOut, RandomRatio, Temporal
from twotower.errors import UserError
from twotower.types import Feature


def test_features_by_hand():
    rows = [
        (1, 10, 1, 1.0),
        (1, 20, 2, 1.0),
        (1, 30, 3, 1.0),
        (1, 40, 4, 1.0),
        (2, 10, 1, 1.0),
        (2, 20, 1, 1.0),
    ]
    items = {
        "item": [10, 20, 30, 40],
        "category": ["b", None, "a", "b"],
        "tags": [["x", "y"], [], ["z"], ["y", "z"]],
        "price": [1.0, 3.0, 50.0, None],
    }
    users = {"user": [1, 2], "colour": ["red", None]}
    arrays, tables, meta, _ = prepare(make_frames(rows, users, items), KEEP_ALL)
    # items 10 and 20 are in training, 30 (validation) and 40 (test) are cold: they have no id row,
    # and "z" is an unknown tag
    assert arrays["item/item_id"].tolist() == [1, 2, 0, 0]
    assert arrays["item/tags"].tolist() == [[1, 2], [0, 0], [0, 0], [2, 0]]
    # training prices 1 and 3: mean 2, deviation 1; a missing price is the mean
    assert arrays["item/price"].tolist() == [-1.0, 1.0, 48.0, 0.0]
    assert arrays["user/colour"].tolist() == [1, 0]
    assert meta["categories"] == ["a", "b"] and arrays["category"].tolist() == [1, -1, 0, 1]
    assert meta["schema"]["num_train_items"] == 2 and meta["schema"]["num_items"] == 4
    assert tables["item"]["item"].to_list() == [10, 20, 30, 40] and tables["user"][
        "user"
    ].to_list() == [1, 2]


def test_weights_have_a_mean_of_1_in_training():
    # both users: two interactions in training, then one to validate and one to test
    rows = [
        (user, item, time, weight)
        for user, weights in ((1, [2.0, 6.0, 9.0, 9.0]), (2, [0.0, 0.0, 9.0, 1.0]))
        for time, (item, weight) in enumerate(zip([10, 20, 30, 40], weights, strict=True))
    ]
    frames = make_frames(rows[::-1], columns=("user", "item", "time", "weight"))
    arrays = prepare(frames, KEEP_ALL).arrays
    # the training mean is (2 + 6 + 0 + 0) / 4 = 2
    found = arrays["interactions/weight"]
    assert found.tolist() == [1, 3, 4.5, 4.5, 0, 0, 4.5, 0.5] and found.dtype == np.float32
    none = frames._replace(interactions=frames.interactions.with_columns(weight=0.0))
    with pytest.raises(UserError, match="weights of all training interactions are 0"):
        prepare(none, KEEP_ALL)


@pytest.mark.parametrize("weight", [-0.5, None, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused_by_row(weight):
    rows = [(1, 10, 1, 1.0), (1, 20, 2, weight), (1, 30, 3, 1.0)]
    frames = make_frames(rows, columns=("user", "item", "time", "weight"))
    with pytest.raises(UserError, match="row 1 has the weight .*; 1 in all are missing"):
        prepare(frames, KEEP_ALL)


def test_times_are_kept_on_request_in_seconds():
    start = 1_500_000_000_000  # milliseconds
    moments = [start + later for later in (3_000, 4_000, 5_000, 8_999, 9_500, 20_000)]
    rows = [(1 + row // 3, 10 * (1 + row % 3), time, 1.0) for row, time in enumerate(moments)]
    frames = make_frames(rows, time_unit="ms")
    kept = KEEP_ALL._replace(history_times=True)
    found = prepare(frames, kept).arrays["interactions/time"]
    assert (found - start // 1_000).tolist() == [3, 4, 5, 8, 9, 20] and found.dtype == np.int64
    assert "interactions/time" not in prepare(frames, KEEP_ALL).arrays
    # steps of a clock stay as they are, and the order of one user alone is no time
    steps = prepare(frames._replace(time_unit="step"), kept).arrays["interactions/time"]
    assert steps.tolist() == moments
    with pytest.raises(UserError, match="data.history_times=true needs times"):
        prepare(frames._replace(time_unit="order"), kept)
    assert "history_times" not in KEEP_ALL.plain() and kept.plain()["history_times"]


def test_what_is_left_out_is_counted_and_kept_by_name():
    rows = [(user, item, item, 1.0) for user in (1, 2) for item in (10, 20, 30)] + [(3, 40, 1, 1.0)]
    items = {"item": [10, 20, 30, 40, 50, 60, None], "category": ["a"] * 7}
    options = KEEP_ALL._replace(filters=Filters(None, "first", 2))
    prepared = prepare(make_frames(rows, {"user": [1, 2, 3]}, items), options)
    assert prepared.tables["left_out_item"].rows() == [
        (40, True),
        (50, False),
        (60, False),
    ]  # 40 has one click, k_core wants two
    assert prepared.tables["left_out_user"].rows() == [(3, True)]
    assert prepared.meta["without_interactions"] == {"users": 0, "items": 2}
    assert prepared.meta["remarks"] == [
        "2 of 6 items of the table of items have no interaction: they are left out, "
        "so the model does not know them and never recommends them"
    ]


def test_groups_follow_the_training_share():
    # training interactions by category: a 5, b 3, c 2:
    # a starts at 0 (head), b at .5 (middle), c at .8 (tail)
    rows = [(u, u, 0, 1.0) for u in range(10)]
    rows += [(99, i, t, 1.0) for t, i in enumerate([0, 5, 8])]  # trains on item 0 once more
    items = {"item": list(range(10)), "category": ["a"] * 4 + ["d"] + ["b"] * 3 + ["c"] * 2}
    arrays = prepare(make_frames(rows, items=items), KEEP_ALL).arrays
    # a: 4 + 1 = 5 of 11, then b 3 from .45, c 2 from .73, d 1 from .91
    assert arrays["group"].tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 1, 1]


def test_temporal_by_hand():
    """Training before 10, validation before 20: the new user 3 and item 9 come after known ones."""
    rows = [
        (2, 7, 1, 1.0),
        (1, 7, 2, 1.0),
        (1, 8, 10, 1.0),
        (3, 9, 12, 1.0),
        (2, 9, 20, 1.0),
        (2, 8, 21, 1.0),
    ]
    options = KEEP_ALL._replace(split=Temporal(10, 20, 0))
    arrays, tables, meta, _ = prepare(make_frames(rows), options)
    assert tables["user"]["user"].to_list() == [1, 2, 3] and meta["num_train_users"] == 2
    assert tables["item"]["item"].to_list() == [7, 8, 9] and meta["schema"]["num_train_items"] == 1
    assert arrays["user/user_id"].tolist() == [1, 2, 0] and arrays["item/item_id"].tolist() == [
        1,
        0,
        0,
    ]
    # sorted by user, part and time: (1, 7) (1, 8) | (2, 7) (2, 9) (2, 8) | (3, 9)
    assert arrays["interactions/item"].tolist() == [0, 1, 0, 2, 1, 2]
    assert arrays["position/train"].tolist() == [0, 2]
    assert arrays["position/val"].tolist() == [1, 5] and arrays["targets/val"].tolist() == [1, 1]
    assert arrays["position/test"].tolist() == [3] and arrays["targets/test"].tolist() == [2]
    assert meta["dropped"] == {}
    less = prepare(make_frames(rows), KEEP_ALL._replace(split=Temporal(10, 20, 1))).meta
    assert less["dropped"] == {
        "held-out interactions of users with less than data.split.min_history": 1
    }
    assert less["num_users"] == 2


def test_counts_add_up():
    rows = [
        (1, 1, 1, 5.0),
        (1, 1, 2, 5.0),
        (1, 2, 3, 1.0),
        (1, 3, 4, 5.0),
        (1, 4, 5, 5.0),
        (2, 1, 1, 5.0),
    ]
    options = KEEP_ALL._replace(filters=Filters(4.0, "first", 0))
    meta = prepare(make_frames(rows, dropped={"outside the dates": 3}), options).meta
    assert meta["raw"]["interactions"] == 9 and meta["num_interactions"] == 4
    assert meta["dropped"] == {
        "outside the dates": 3,
        "rated below 4": 1,
        "repeated pairs (the first is kept)": 1,
    }


def test_behaviours_are_kept_apart():
    rows = [(1, 1, 1, 0), (1, 1, 2, 1), (1, 1, 3, 1), (1, 2, 4, 0), (1, 3, 5, 0)]
    frames = make_frames(
        rows, columns=("user", "item", "time", "behaviour"), behaviours=("click", "buy")
    )
    arrays, _, meta, _ = prepare(frames, KEEP_ALL)
    assert arrays["interactions/behaviour"].tolist() == [0, 1, 0, 0] and meta["behaviours"] == [
        "click",
        "buy",
    ]


def test_a_split_without_test_rows_says_what_to_change():
    with pytest.raises(
        UserError, match=r"leaves nothing for val: lower data.k_core or data.split.min_history"
    ):
        prepare(make_frames([(1, 1, 1, 1.0), (1, 2, 2, 1.0)]), KEEP_ALL)


worlds = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.integers(0, 9),
        st.integers(0, 5),
        st.sampled_from([1.0, 5.0]),
        st.sampled_from([0, 0, 0, 1, 2]),
    ),
    min_size=8,
    max_size=80,
)
splits = st.one_of(
    st.builds(LeaveLastOut, st.integers(1, 3)),
    st.builds(
        Temporal, st.sampled_from([1, 2, 0.5]), st.sampled_from([3, 4, 0.9]), st.integers(0, 2)
    ),
    st.builds(
        RandomRatio,
        st.sampled_from([0.1, 0.3]),
        st.sampled_from([0.2, 0.4]),
        st.integers(0, 5),
        st.integers(1, 2),
    ),
    st.builds(Given, st.sampled_from([0.1, 0.4]), st.integers(0, 5)),
)


@settings(max_examples=100, deadline=None)
@given(
    rows=worlds,
    split=splits,
    k_core=st.integers(0, 3),
    duplicates=st.sampled_from(["first", "last", "all"]),
)
def test_no_leak_in_random_worlds(rows, split, k_core, duplicates):
    items = {
        "item": list(range(10)),
        "category": None,
        "tags": [[f"tag {i}"] for i in range(10)],
        "price": [2.0**i for i in range(10)],
    }
    users = {"user": list(range(7)), "home": [f"town {u}" for u in range(7)]}
    frames = make_frames(rows, users, items, ("user", "item", "time", "value", "part"))
    options = Options(Filters(None, duplicates, k_core), split, 3, (0.5, 0.8))
    try:
        arrays, tables, meta, _ = prepare(frames, options)
    except UserError:
        return
    user, item, offset = arrays["interactions/user"], arrays["interactions/item"], arrays["offset"]
    train = arrays["position/train"].tolist()
    held_out = {
        name: [
            position + place
            for position, num in zip(
                arrays[f"position/{name}"].tolist(), arrays[f"targets/{name}"].tolist(), strict=True
            )
            for place in range(num)
        ]
        for name in ("val", "test")
    }
    # no interaction is in two parts, each is in one, and none is invented
    assert sorted(train + held_out["val"] + held_out["test"]) == list(range(len(user)))
    assert sum(meta["dropped"].values()) + len(user) == len(rows)
    pairs = {(row[0], row[1]) for row in rows}
    raw = list(
        zip(
            tables["user"]["user"][user].to_list(),
            tables["item"]["item"][item].to_list(),
            strict=True,
        )
    )
    assert set(raw) <= pairs and (duplicates == "all" or len(set(raw)) == len(raw))
    # vocabularies and statistics come from training rows alone
    num_items, num_users = meta["schema"]["num_train_items"], meta["num_train_users"]
    assert set(item[train].tolist()) == set(range(num_items)) and set(user[train].tolist()) == set(
        range(num_users)
    )
    assert (arrays["item/item_id"][num_items:] == 0).all() and (
        arrays["user/user_id"][num_users:] == 0
    ).all()
    assert (arrays["item/tags"][num_items:] == 0).all() and (
        arrays["user/home"][num_users:] == 0
    ).all()
    prices = np.array([2.0**i for i in tables["item"]["item"][:num_items].to_list()])
    assert np.allclose(
        arrays["item/price"][:num_items], (prices - prices.mean()) / (prices.std() or 1), atol=1e-5
    )
    # a user's targets come after everything the user may know: no later part lies before them
    part = np.zeros(len(user), int)
    part[held_out["val"]], part[held_out["test"]] = 1, 2
    for position in range(len(user)):
        before = slice(offset[user[position]], position)
        assert (part[before] <= part[position]).all() and (user[before] == user[position]).all()
        if duplicates != "all":
            assert item[position] not in item[before]
    if isinstance(split, Temporal):
        bounds = meta["times"]["parts"]
        assert (
            bounds["train"]["last"] < bounds["val"]["first"]
            and bounds["val"]["last"] < bounds["test"]["first"]
        )
    if isinstance(split, LeaveLastOut):
        assert all(position == offset[user[position] + 1] - 1 for position in held_out["test"])
    if k_core > 1 and not isinstance(split, Temporal):
        assert np.bincount(user).min() >= k_core and np.bincount(item).min() >= k_core


def test_a_last_target_has_the_earlier_ones_in_its_history():
    rows = [(1, 10 * (1 + time), time, 1.0) for time in range(8)]
    options = KEEP_ALL._replace(split=Temporal(2, 4, 0, "last"))
    arrays = prepare(make_frames(rows), options).arrays
    assert arrays["position/test"].tolist() == [7] and arrays["targets/test"].tolist() == [1]
    assert arrays["position/val"].tolist() == [3]
    each = prepare(make_frames(rows), KEEP_ALL._replace(split=Temporal(2, 4, 0, "successive")))
    assert each.arrays["position/test"].tolist() == [4, 5, 6, 7]
    together = prepare(make_frames(rows), KEEP_ALL._replace(split=Temporal(2, 4, 0)))
    assert together.arrays["position/test"].tolist() == [4]
    assert together.arrays["targets/test"].tolist() == [4]


def test_buckets_of_numbers_by_hand():
    rows = [(user, item, 1, 1.0) for user in range(4) for item in range(8)]
    rows += [(user, 8 + part, 2 + part, 1.0) for user in range(4) for part in (0, 1)]
    # the quartiles of the seven known prices in training are 1.5, 2 and 3
    prices = [1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 5.0, None, 4.25, 100.0]
    items = {"item": list(range(10)), "category": [None] * 10, "price": prices}
    users = {"user": [0, 1, 2, 3]}
    options = KEEP_ALL._replace(numeric_buckets=4)
    found = prepare(make_frames(rows, users, items), options)
    edges = np.unique(np.quantile([1, 1, 2, 2, 2, 4, 5], [0.25, 0.5, 0.75]))
    assert edges.tolist() == [1.5, 2, 3]
    assert found.encodings["item/price"]["edge"].to_list() == edges.tolist()
    # 0 is missing, a value on an edge belongs to the upper bucket, cold items have theirs
    assert found.arrays["item/price"].tolist() == [1, 1, 3, 3, 3, 4, 4, 0, 4, 4]
    assert ["price", "categorical", 5] in found.meta["schema"]["item"]
    features = (Feature("item_id", "categorical", 9), Feature("price", "categorical", 5))
    for price, bucket in ((1.4, 1), (1.5, 2), (2, 3), (9, 4), (None, 0)):
        new = from_values("item", features, {"price": price}, found.encodings)
        assert new["price"].tolist() == [bucket], price
    with pytest.raises(UserError, match="features.price must be a number"):
        from_values("item", features, {"price": "cheap"}, found.encodings)
    frequent = {**items, "price": [1.0] * 10}
    none = prepare(make_frames(rows, users, frequent), options)
    assert none.arrays["item/price"].tolist() == [2] * 10  # all values are on the one edge
    with pytest.raises(UserError, match="data.numeric_buckets must be"):
        options._replace(numeric_buckets=1).check()
    assert "numeric_buckets" not in KEEP_ALL.plain()
