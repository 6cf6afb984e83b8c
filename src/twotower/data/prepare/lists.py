"""Places of the values of lists in a table with a row for each list."""

import numpy as np


def places(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(num_values,)`` row and column of each value, for lists of ``length`` ``(num_rows,)``."""
    row = np.repeat(np.arange(len(length)), length)
    return row, np.arange(len(row)) - np.searchsorted(row, row)
