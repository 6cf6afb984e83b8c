"""Filters by hand, and what no later step could mend."""

import time

import polars as pl
import pytest

from tests.helpers.frames import make_frames
from twotower.data import blocks
from twotower.data.blocks import Storage
from twotower.data.prepare.coding import IN_MEMORY
from twotower.data.prepare.filters import (
    Filters,
    check_interactions,
    filter_interactions,
    threshold,
)
from twotower.errors import UserError

ALL = Filters(None, "all", 0)


def kept(rows, filters, columns=("user", "item", "time", "value")):
    """What is left, which must not depend on how many rows are worked on at once."""
    frames, several = make_frames(rows, columns=columns), []
    for size in (blocks.BLOCK, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK", size)
            thresholds = threshold(pl.col("value"), filters, frames.columns())
            coded = filter_interactions(IN_MEMORY.code(frames, thresholds), filters, Storage())
        ids = (coded.user_ids[coded.column("user")], coded.item_ids[coded.column("item")])
        several.append((list(zip(*map(list, ids), strict=True)), coded.dropped))
    assert several[0] == several[1]
    return several[0]


def test_order_is_user_then_time_then_file_order():
    rows = [(1, 30, 5, 1.0), (1, 20, 5, 1.0), (0, 9, 9, 1.0), (1, 10, 4, 1.0), (1, 40, 5, 1.0)]
    assert kept(rows, ALL)[0] == [(0, 9), (1, 10), (1, 30), (1, 20), (1, 40)]


def test_k_core_runs_to_a_fixed_point():
    # item 9 falls first (one user), then user 3 (one item left), then item 8 (one user left)
    rows = [
        (u, i, t, 1.0)
        for t, (u, i) in enumerate([(1, 6), (1, 7), (2, 6), (2, 7), (3, 9), (3, 8), (1, 8)])
    ]
    found, dropped = kept(rows, ALL._replace(k_core=2))
    assert sorted(found) == [(1, 6), (1, 7), (2, 6), (2, 7)]
    assert dropped == {"users or items with fewer than 2 interactions": 3}


def test_threshold_keeps_values_from_it_on():
    rows = [(1, 1, 1, 3.0), (1, 2, 2, 4.0), (1, 3, 3, 5.0)]
    assert kept(rows, ALL._replace(min_value=4)) == ([(1, 2), (1, 3)], {"rated below 4": 1})


def test_what_is_not_rated_passes_no_threshold():
    rows = [(1, 1, 1, 3.0), (1, 2, 2, float("nan")), (1, 3, 3, 5.0), (1, 4, 4, None)]
    assert kept(rows, ALL._replace(min_value=4)) == (
        [(1, 3)],
        {"without a rating": 2, "rated below 4": 1},
    )


@pytest.mark.parametrize("gap", ["", "  "])
def test_an_id_of_blanks_is_missing_whatever_the_reader(gap):
    frames = make_frames([("a", 1, 1, 1.0), (gap, 2, 2, 1.0)])
    with pytest.raises(UserError, match="1 interactions have no user, the first is row 1"):
        check_interactions(frames)


@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [
        ("first", [(1, 7), (1, 8), (2, 7)]),
        ("last", [(1, 8), (1, 7), (2, 7)]),
        ("all", [(1, 7), (1, 8), (1, 7), (2, 7)]),
    ],
)
def test_repeated_pairs(duplicates, expected):
    rows = [(1, 7, 1, 1.0), (1, 8, 2, 1.0), (1, 7, 3, 1.0), (2, 7, 1, 1.0)]
    assert kept(rows, ALL._replace(duplicates=duplicates))[0] == expected


def test_pairs_with_other_behaviours_are_no_repetition():
    rows = [(1, 7, 1, 0), (1, 7, 2, 1), (1, 7, 3, 0)]
    assert kept(rows, ALL._replace(duplicates="first"), ("user", "item", "time", "behaviour"))[
        0
    ] == [(1, 7), (1, 7)]


def test_pairs_of_another_part_are_repetitions_too():
    rows = [(1, 7, 1, 0), (1, 7, 2, 2)]
    assert kept(rows, ALL._replace(duplicates="first"), ("user", "item", "time", "part"))[0] == [
        (1, 7)
    ]


def test_nothing_left_names_the_settings():
    with pytest.raises(
        UserError, match=r"no interaction is left of 1 after data.min_value=4.*lower them"
    ):
        kept([(1, 1, 1, 3.0)], ALL._replace(min_value=4))


def test_a_threshold_needs_ratings():
    with pytest.raises(
        UserError,
        match=r"data.min_value=4 needs ratings.*data.reader.columns.value=<column>; "
        r"else set data.min_value=null",
    ):
        kept([(1, 1, 1)], ALL._replace(min_value=4), ("user", "item", "time"))


@pytest.mark.parametrize(
    ("rows", "unit", "message"),
    [
        ([("a", 1, 1), (None, 1, 1)], "step", r"1 interactions have no user, the first is row 1"),
        ([("a", 1, None)], "step", r"1 interactions have no time"),
        (
            [("a" * 5000, 1, 1)],
            "step",
            r"row 0 has a user of 5,000 characters.*a quote or a line break is missing",
        ),
        (
            [("a", 1, 1_500_000_000), ("a", 2, int(time.time()) + 10**6)],
            "s",
            r"row 1 .*in the future: correct or remove",
        ),
        (
            [("a", 1, 1_500_000_000), ("a", 2, 1_500_000_000_000)],
            "s",
            r"row 1 .*in milliseconds it is 2017-07-14 02:40, so units are mixed or 's' is wrong",
        ),
        (
            [("a", 1, 1_500_000_000), ("a", 2, 1_500_000_000_000)],
            "ms",
            r"row 0 .*in seconds it is 2017-07-14 02:40",
        ),
        ([("a", 1, 0), ("a", 2, 1_500_000_000)], "s", r"row 0 .*1970-01-01"),
    ],
)
def test_what_no_later_step_could_mend(rows, unit, message):
    with pytest.raises(UserError, match=message):
        check_interactions(make_frames(rows, columns=("user", "item", "time"), time_unit=unit))


SOME = [
    (user, item, time, 1.0)
    for user, num in ((0, 9), (1, 4), (2, 2))
    for item, time in enumerate(range(num))
]


def test_thinning_keeps_the_last_two_and_some_of_the_others_in_order():
    found, dropped = kept(SOME, ALL._replace(max_per_user=5))
    items = {user: [item for own, item in found if own == user] for user in (0, 1, 2)}
    assert len(items[0]) == 5 and items[0] == sorted(items[0]) and items[0][-2:] == [7, 8]
    assert items[1] == [0, 1, 2, 3] and items[2] == [0, 1]  # no more than they had
    assert dropped == {"beyond data.max_per_user=5, drawn with seed 0": 4}


def test_thinning_is_a_seeded_choice():
    """Over 300 seeds each of user 0's first seven is one of the three drawn, 300 * 3 / 7 = 129."""
    counts = [0] * 9
    for seed in range(300):
        found, _ = kept(SOME, ALL._replace(max_per_user=5, thinning_seed=seed))
        assert found == kept(SOME, ALL._replace(max_per_user=5, thinning_seed=seed))[0]
        for user, item in found:
            counts[item] += user == 0
    assert counts[7:] == [300, 300] and min(counts[:7]) > 90 and max(counts[:7]) < 170


def test_a_smaller_dose_is_a_part_of_a_larger_one():
    doses = [set(kept(SOME, ALL._replace(max_per_user=most))[0]) for most in (3, 4, 6, 9)]
    assert all(one < other for one, other in zip(doses, doses[1:], strict=False))
    assert len(doses[-1]) == len(SOME)


def test_thinning_of_a_given_split_is_of_its_training_part():
    rows = [(0, item, item, part) for item, part in enumerate([0, 0, 0, 0, 0, 1, 2, 2])]
    found, dropped = kept(rows, ALL._replace(max_per_user=3), ("user", "item", "time", "part"))
    items = [item for _, item in found]
    assert items[-3:] == [5, 6, 7] and len(items) == 6 and sum(dropped.values()) == 2


def test_thinning_comes_after_the_other_filters():
    """Each dose has the users and items of the whole data that pass them."""
    rows = [(user, item, item, 1.0) for user in range(6) for item in range(8)]
    found, _ = kept(rows, ALL._replace(k_core=6, max_per_user=3))
    assert {user for user, _ in found} == set(range(6)) and len(found) == 18


@pytest.mark.parametrize("most", [0, 2])
def test_a_dose_without_training_is_refused(most):
    with pytest.raises(UserError, match="data.max_per_user must be"):
        ALL._replace(max_per_user=most).check()
