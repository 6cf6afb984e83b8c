"""iALS against normal equations written out in NumPy, float64."""

import numpy as np
import pytest
import torch

from twotower.errors import UserError
from twotower.models import ials
from twotower.models.ials import IALS
from twotower.types import Feature, Interactions, Schema

USERS, ITEMS = 4, 5
PAIRS = [
    (0, 0),
    (0, 1),
    (0, 4),
    (1, 1),
    (2, 2),
    (2, 3),
    (3, 4),
    (3, 0),
    (0, 1),
]  # the last one is a repetition
SETTINGS = {
    "dim": 3,
    "num_sweeps": 1,
    "unobserved_weight": 0.2,
    "regularization": 0.05,
    "frequency_scaling": 0.7,
    "init_std": 0.5,
    "cold_ids": "mean",
}


def schema(users=USERS, items=ITEMS):
    return Schema(
        (Feature("user_id", "categorical", users + 1),),
        (Feature("item_id", "categorical", items + 1),),
        items,
        items,
        0,
    )


def make(**changes):
    torch.manual_seed(1)
    return IALS(schema(), **{**SETTINGS, **changes}).double()


def interactions():
    user, item = torch.tensor(PAIRS).T
    return Interactions(user + 1, item + 1)


def half_sweep(pairs, num, other, s):
    """Solve ``(Σ_observed h hᵀ + α Hᵀ H + λ (n + α m)^ν I) w = Σ_observed h`` row by row."""
    solved = np.zeros((num, s["dim"]))
    for row in range(num):
        observed = sorted({column for r, column in pairs if r == row})
        ridge = (
            s["regularization"]
            * (len(observed) + s["unobserved_weight"] * len(other)) ** s["frequency_scaling"]
        )
        matrix = s["unobserved_weight"] * other.T @ other + ridge * np.eye(s["dim"])
        right = np.zeros(s["dim"])
        for column in observed:
            matrix += np.outer(other[column], other[column])
            right += other[column]
        solved[row] = np.linalg.solve(matrix, right)
    return solved


@pytest.mark.parametrize("chunk_numbers", [1 << 24, 1])  # all rows in one chunk, or each in its own
@pytest.mark.parametrize("num_sweeps", [1, 3])
def test_sweeps_are_the_normal_equations(num_sweeps, chunk_numbers, monkeypatch):
    monkeypatch.setattr(ials, "CHUNK_NUMBERS", chunk_numbers)
    model = make(num_sweeps=num_sweeps)
    item = model.item_factors[1:].numpy().copy()
    for _ in range(num_sweeps):
        user = half_sweep(PAIRS, USERS, item, SETTINGS)
        item = half_sweep([(i, u) for u, i in PAIRS], ITEMS, user, SETTINGS)
    model.fit(interactions())
    np.testing.assert_allclose(model.user_factors[1:], user)
    np.testing.assert_allclose(model.item_factors[1:], item)


def objective(user, item, s):
    scores, count = user @ item.T, np.zeros((USERS, ITEMS))
    for u, i in PAIRS:
        count[u, i] = 1
    loss = (count * (scores - 1) ** 2).sum() + s["unobserved_weight"] * (scores**2).sum()
    for factors, n, m in ((user, count.sum(1), ITEMS), (item, count.sum(0), USERS)):
        weight = (n + s["unobserved_weight"] * m) ** s["frequency_scaling"]
        loss += s["regularization"] * (weight * (factors**2).sum(1)).sum()
    return loss


def test_fit_minimises_the_objective_of_the_paper():
    """The first sweeps lower the objective; after many, no small step of any factor does."""
    model = make(num_sweeps=200)
    start = objective(model.user_factors[1:].numpy(), model.item_factors[1:].numpy(), SETTINGS)
    model.fit(interactions())
    user, item = model.user_factors[1:].numpy().copy(), model.item_factors[1:].numpy().copy()
    least = objective(user, item, SETTINGS)
    assert least < 0.5 * start
    for factors in (user, item):
        for place in np.ndindex(*factors.shape):
            for step in (1e-3, -1e-3):
                factors[place] += step
                assert objective(user, item, SETTINGS) > least
                factors[place] -= step


def test_initial_factors_have_the_norm_of_the_setting():
    for dim in (16, 256):
        model = IALS(schema(items=500), **{**SETTINGS, "dim": dim})
        assert model.item_factors.square().sum(1).mean().sqrt().item() == pytest.approx(
            SETTINGS["init_std"], rel=0.05
        )


def test_cold_ids():
    for policy in ("mean", "zero"):
        model = make(cold_ids=policy)
        model.fit(interactions())
        expected = model.item_factors[1:].mean(0) if policy == "mean" else torch.zeros(3)
        torch.testing.assert_close(
            model.encode_item({"item_id": torch.tensor([0])})[0], expected.double()
        )


def test_a_singular_system_is_refused():
    with pytest.raises(UserError, match=r"raise model\.regularization"):
        make(regularization=0.0, unobserved_weight=0.0).fit(interactions())
