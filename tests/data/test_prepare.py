"""Preparation on hand-made frames, and its promises on random worlds."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twotower.data.frames import Frames
from twotower.data.prepare import Options, filter_interactions, prepare
from twotower.data.splits import TEST, TRAIN, VAL, leave_last_out
from twotower.types import UserError

KEEP_ALL = Options(None, 0, 3, (0.5, 0.8))


def make_frames(rows, users=None, items=None):
    interactions = pl.DataFrame(rows, schema=["user", "item", "time", "value"], orient="row")
    users = users or {"user": interactions["user"].unique().sort()}
    items = items or {"item": interactions["item"].unique().sort(), "category": [None] * interactions["item"].n_unique()}
    user_kinds = {name: "categorical" for name in users if name != "user"}
    item_kinds = {name: {"tags": "multi", "price": "numeric"}[name] for name in items if name not in ("item", "category")}
    return Frames(interactions, pl.DataFrame(users), pl.DataFrame(items), user_kinds, item_kinds)


def test_leave_last_out_by_hand():
    part = leave_last_out(np.array([7, 7, 7, 7, 8, 8, 9, 9, 9]))
    assert part.tolist() == [TRAIN, TRAIN, VAL, TEST, TRAIN, TRAIN, TRAIN, VAL, TEST]


def test_order_is_time_then_file_order():
    rows = [(1, 30, 5, 1.0), (1, 20, 5, 1.0), (1, 10, 4, 1.0), (1, 40, 5, 1.0)]
    kept = filter_interactions(make_frames(rows).interactions, KEEP_ALL)
    assert kept["item"].to_list() == [10, 30, 20, 40]


def test_k_core_runs_to_a_fixed_point():
    # item 9 falls first (one user), then user 3 (one item left), then item 8 (one user left)
    rows = [(u, i, t, 1.0) for t, (u, i) in enumerate([(1, 6), (1, 7), (2, 6), (2, 7), (3, 9), (3, 8), (1, 8)])]
    kept = filter_interactions(make_frames(rows).interactions, KEEP_ALL._replace(k_core=2))
    assert sorted(zip(kept["user"], kept["item"], strict=True)) == [(1, 6), (1, 7), (2, 6), (2, 7)]


def test_threshold_keeps_values_from_it_on():
    rows = [(1, 1, 1, 3.0), (1, 2, 2, 4.0), (1, 3, 3, 5.0)]
    kept = filter_interactions(make_frames(rows).interactions, KEEP_ALL._replace(min_value=4))
    assert kept["item"].to_list() == [2, 3]


def test_nothing_left_names_the_settings():
    rows = [(1, 1, 1, 3.0)]
    with pytest.raises(UserError, match=r"data.min_value=4.*lower"):
        filter_interactions(make_frames(rows).interactions, KEEP_ALL._replace(min_value=4))


def test_features_by_hand():
    rows = [(1, 10, 1, 1.0), (1, 20, 2, 1.0), (1, 30, 3, 1.0), (1, 40, 4, 1.0), (2, 10, 1, 1.0), (2, 20, 1, 1.0)]
    items = {
        "item": [10, 20, 30, 40],
        "category": ["b", None, "a", "b"],
        "tags": [["x", "y"], [], ["z"], ["y", "z"]],
        "price": [1.0, 3.0, 50.0, None],
    }
    users = {"user": [1, 2], "colour": ["red", None]}
    arrays, meta = prepare(make_frames(rows, users, items), KEEP_ALL)
    # items 10 and 20 are in training, 30 (validation) and 40 (test) are cold: no id row, and "z" is no known tag
    assert arrays["item/item_id"].tolist() == [1, 2, 0, 0]
    assert arrays["item/tags"].tolist() == [[1, 2], [0, 0], [0, 0], [2, 0]]
    # training prices 1 and 3: mean 2, deviation 1; a missing price is the mean
    assert arrays["item/price"].tolist() == [-1.0, 1.0, 48.0, 0.0]
    assert arrays["user/colour"].tolist() == [1, 0]
    assert meta["categories"] == ["a", "b"] and arrays["category"].tolist() == [1, -1, 0, 1]
    assert meta["schema"]["num_train_items"] == 2 and meta["schema"]["num_items"] == 4
    assert arrays["raw/item"].tolist() == [10, 20, 30, 40]


def test_groups_follow_the_training_share():
    # training interactions by category: a 5, b 3, c 2: a starts at 0 (head), b at .5 (middle), c at .8 (tail)
    rows = [(u, u, 0, 1.0) for u in range(10)]
    rows += [(99, i, t, 1.0) for t, i in enumerate([0, 5, 8])]  # trains on item 0 once more
    items = {"item": list(range(10)), "category": ["a"] * 4 + ["d"] + ["b"] * 3 + ["c"] * 2}
    arrays, _ = prepare(make_frames(rows, items=items), KEEP_ALL)
    # a: 4 + 1 = 5 of 11, then b 3 from .45, c 2 from .73, d 1 from .91
    assert arrays["group"].tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 1, 1]


worlds = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 5), st.sampled_from([1.0, 5.0])), min_size=8, max_size=80
)


@settings(max_examples=80, deadline=None)
@given(rows=worlds, k_core=st.integers(0, 3))
def test_no_leak_in_random_worlds(rows, k_core):
    try:
        arrays, meta = prepare(make_frames(rows), KEEP_ALL._replace(k_core=k_core))
    except UserError:
        return
    user, item = arrays["interactions/user"], arrays["interactions/item"]
    parts = [set(arrays[f"position/{name}"].tolist()) for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(user) == len(set.union(*parts))  # each row in exactly one part
    num_train_items = meta["schema"]["num_train_items"]
    assert set(item[sorted(parts[0])].tolist()) == set(range(num_train_items))  # the vocabulary is that of training
    for name in ("val", "test"):
        for position in arrays[f"position/{name}"]:
            mine = [p for p in range(len(user)) if user[p] == user[position]]
            assert position == mine[-1 if name == "test" else -2]  # nothing of the user comes after a test target
    if k_core > 1:
        assert np.bincount(user).min() >= k_core and np.bincount(item).min() >= k_core
