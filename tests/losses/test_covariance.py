"""Sums over categories with more items than a tile holds, against NumPy."""

import numpy as np
import pytest
import torch

from twotower.losses.covariance import TILE, category_covariance


@pytest.mark.parametrize(
    "sizes",
    [
        [3 * TILE + 5, 1, TILE, 2, TILE + 1],
        [TILE] * 4,
        [1] * 7,
        [2 * TILE - 1, TILE + 1, 2],
        [5 * TILE, 0, 0, 4],
    ],
)
def test_large_categories_equal_numpy(sizes):
    rng = np.random.default_rng(len(sizes))
    category = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    item, weight = rng.normal(1.0, 1.0, size=(len(category), 3)), rng.integers(1, 4, len(category))
    found = category_covariance(
        torch.tensor(item), torch.tensor(category), torch.tensor(weight), len(sizes)
    )
    for place, index in enumerate(np.unique(category)):
        rows, counts = item[category == index], weight[category == index]
        assert found.category[place] == index and found.n[place] == counts.sum()
        expected = np.cov(rows.T, fweights=counts) if counts.sum() > 1 else np.zeros((3, 3))
        np.testing.assert_allclose(found.covariance[place], expected, atol=1e-12)
