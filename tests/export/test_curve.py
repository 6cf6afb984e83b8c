"""The picture of an approximate index."""

import pytest

from tests.helpers.pictures import faults
from twotower.export.curve import recall_curve


@pytest.mark.parametrize(
    "values", [[1, 2], [8, 16, 32, 64, 128, 256], list(range(1000, 13_000, 1000))]
)
def test_values_of_the_setting_lie_on_no_others_even_if_all_take_the_same_time(values):
    point = {"recall": 0.99, "hit_rate": 0.123, "milliseconds": 0.1}
    parity = {
        "k": 10,
        "exact_hit_rate": 0.1234,
        "flat": point,
        "curve": [{"efSearch": value, **point} for value in values],
    }
    figure = recall_curve(parity, {"type": "hnsw", "parameter": "efSearch"})
    assert faults(figure) == []
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == list(
        map(str, values)
    )
