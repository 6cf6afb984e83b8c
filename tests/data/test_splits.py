"""Splits by hand."""

import numpy as np
import pytest

from twotower.data.splits import (
    NOWHERE,
    TEST,
    TRAIN,
    VAL,
    Given,
    LeaveLastOut,
    RandomRatio,
    Rows,
    Temporal,
    TemporalFolds,
    held_out,
)
from twotower.errors import UserError


def rows(user, time=None, unit="s", part=None):
    user = np.array(user)
    return Rows(user, np.arange(len(user)) if time is None else np.array(time), unit, part)


def test_leave_last_out():
    part = LeaveLastOut(1)(rows([0, 0, 0, 0, 1, 1, 2, 2, 2]))
    assert part.tolist() == [TRAIN, TRAIN, VAL, TEST, TRAIN, TRAIN, TRAIN, VAL, TEST]
    part = LeaveLastOut(2)(rows([0, 0, 0, 0, 1, 1, 2, 2, 2]))
    assert part.tolist() == [TRAIN, TRAIN, VAL, TEST, TRAIN, TRAIN, TRAIN, TRAIN, TRAIN]


def test_temporal():
    user, time = [0, 0, 0, 0, 1, 1, 2], [1, 5, 6, 9, 6, 9, 10]
    assert Temporal(6, 9, 0)(rows(user, time)).tolist() == [
        TRAIN,
        TRAIN,
        VAL,
        TEST,
        VAL,
        TEST,
        TEST,
    ]
    assert Temporal(6, 9, 1)(rows(user, time)).tolist() == [
        TRAIN,
        TRAIN,
        VAL,
        TEST,
        NOWHERE,
        NOWHERE,
        NOWHERE,
    ]
    assert Temporal(6, 9, 3)(rows(user, time)).tolist() == [
        TRAIN,
        TRAIN,
        NOWHERE,
        NOWHERE,
        NOWHERE,
        NOWHERE,
        NOWHERE,
    ]


def test_temporal_quantiles_and_dates():
    # ten times: the quantile .5 (taken from above) is the sixth value, .8 the ninth
    part = Temporal(0.5, 0.8, 0)(rows([0] * 10, list(range(0, 100, 10))))
    assert part.tolist() == [TRAIN] * 5 + [VAL] * 3 + [TEST] * 2
    day = 86_400_000  # 2017-10-14 is 17,453 days after 1970
    times = [17_453 * day - 1, 17_453 * day, 17_454 * day - 1, 17_454 * day]
    part = Temporal("2017-10-14", "2017-10-15T00:00", 0)(rows([0] * 4, times, "ms"))
    assert part.tolist() == [TRAIN, VAL, VAL, TEST]


def test_folds_over_time():
    # twelve interactions, half of them in all trainings, then three parts of two
    one = rows([0] * 12)
    found = [TemporalFolds(2, fold, 0.5, 0)(one).tolist() for fold in (0, 1)]
    assert found[0] == [TRAIN] * 6 + [VAL] * 2 + [TEST] * 2 + [NOWHERE] * 2
    assert found[1] == [TRAIN] * 8 + [VAL] * 2 + [TEST] * 2
    # a user with too little history before the fold is left out of it
    two = rows([0] * 6 + [1] * 6, [0, 1, 2, 3, 8, 10, 4, 5, 6, 7, 9, 11])
    assert TemporalFolds(2, 0, 0.5, 3)(two).tolist()[6:] == [TRAIN] * 2 + [NOWHERE] * 4
    with pytest.raises(UserError, match="data.split.fold must be"):
        TemporalFolds(2, 2, 0.5, 0)
    kinds = [vars(TemporalFolds(2, fold, 0.5, 0)) for fold in (0, 1)]
    assert kinds[0] != kinds[1] and "targets" not in kinds[0]  # both are cache keys


@pytest.mark.parametrize(
    ("targets", "position", "num"),
    [
        ("all", [4, 9, 11], [3, 1, 2]),
        ("first", [4, 9, 11], [1, 1, 1]),
        ("last", [6, 9, 12], [1, 1, 1]),
        ("successive", [4, 5, 6, 9, 11, 12], [1] * 6),
    ],
)
def test_targets_by_hand(targets, position, num):
    held = np.array([4, 5, 6, 9, 11, 12])
    found = held_out(held, np.array([0, 0, 0, 1, 2, 2]), targets)
    assert [part.tolist() for part in found] == [position, num]


def test_targets_of_a_split():
    with pytest.raises(UserError, match="data.split.targets must be one of"):
        Temporal(0.8, 0.9, 0, "next")
    assert vars(Temporal(0.8, 0.9, 0, "last"))["targets"] == "last"
    assert "targets" not in vars(Temporal(0.8, 0.9, 0))


def test_temporal_borders_are_exact():
    fractions = rows([0] * 4, [0.25, 1.5, 1.75, 2.5], "step")
    assert Temporal(1.75, 2.5, 0)(fractions).tolist() == [TRAIN, TRAIN, VAL, TEST]
    assert Temporal(0.5, 0.9, 0)(fractions).tolist() == [
        TRAIN,
        TRAIN,
        VAL,
        TEST,
    ]  # quantiles .5 and .9 from above
    whole = rows([0] * 4, [1, 2, 3, 4])
    assert Temporal(1.5, 3.5, 0)(whole).tolist() == [TRAIN, VAL, VAL, TEST]
    first = 1_600_000_000_000_000_001  # nanoseconds, which floats do not tell apart
    nanoseconds = rows([0] * 4, [first, first + 1, first + 2, first + 3], "ns")
    assert Temporal(0.5, 0.9, 0)(nanoseconds).tolist() == [TRAIN, TRAIN, VAL, TEST]


@pytest.mark.parametrize(
    ("split", "unit", "message"),
    [
        (Temporal(0.8, 0.9, 0), "order", "needs times.*take leave_last_out"),
        (
            Temporal(0.9, 0.8, 0),
            "s",
            "data.split.val_from=0.9 must come before data.split.test_from=0.8",
        ),
        (Temporal("gestern", 0.9, 0), "s", "data.split.val_from=gestern is not a date"),
        (Temporal("2017-10-14", 0.9, 0), "step", "count steps, not seconds; give a quantile"),
        (Given(0.1, 0), "s", "come without a split; take leave_last_out"),
    ],
)
def test_what_does_not_fit_the_data(split, unit, message):
    with pytest.raises(UserError, match=message):
        split(rows([0] * 10, unit=unit))


def test_random_ratio_counts_and_seeds():
    user = [0] * 20 + [1] * 10 + [2] * 2
    part = RandomRatio(0.1, 0.2, 0, 1)(rows(user))
    counts = [
        [int((part[np.array(user) == u] == p).sum()) for p in (TRAIN, VAL, TEST)] for u in range(3)
    ]
    assert counts == [[14, 2, 4], [7, 1, 2], [2, 0, 0]]
    assert (part == RandomRatio(0.1, 0.2, 0, 1)(rows(user))).all()
    assert (part != RandomRatio(0.1, 0.2, 1, 1)(rows(user))).any()
    few = RandomRatio(0.1, 0.2, 0, 8)(rows(user))  # user 1 would keep seven
    assert (few[20:] == TRAIN).all() and (few[:20] == part[:20]).all()


def test_given_keeps_its_test_and_draws_validation_from_training():
    given_part = np.array([TRAIN] * 10 + [TEST] * 2 + [TRAIN] * 10 + [TEST])
    user = [0] * 12 + [1] * 11
    part = Given(0.1, 0)(rows(user, part=given_part))
    assert ((part == TEST) == (given_part == TEST)).all()
    assert [(part[:12] == VAL).sum(), (part[12:] == VAL).sum()] == [1, 1]
    own = np.array([TRAIN, VAL, TEST])
    assert (Given(0.1, 0)(rows([0, 0, 0], part=own)) == own).all()
