"""Splits: which interactions are for training, validation and test. Rows are sorted by user, time and file order."""

import numpy as np

TRAIN, VAL, TEST = 0, 1, 2


def leave_last_out(user: np.ndarray) -> np.ndarray:
    """Each user's last interaction is for test, the one before for validation; users with fewer than 3 only train.

    Args:
        user: ``(num_interactions,)`` ids, equal ones adjacent.

    Returns:
        ``(num_interactions,)`` of ``TRAIN``, ``VAL``, ``TEST``.
    """
    _, start, count = np.unique(user, return_index=True, return_counts=True)
    part = np.full(len(user), TRAIN, dtype=np.int8)
    end = start[count >= 3] + count[count >= 3]
    part[end - 1] = TEST
    part[end - 2] = VAL
    return part
