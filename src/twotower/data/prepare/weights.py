"""Weights of interactions: how much each counts in the loss."""

import numpy as np
import polars as pl

from twotower.data.frames import Frames
from twotower.errors import UserError


def check_weights(frames: Frames) -> None:
    """Refuse weights that are missing, negative or not finite.

    Args:
        frames: a reader's, with ``weight`` among the interactions.

    Raises:
        UserError: naming the first such row.
    """
    weight = pl.col("weight").cast(pl.Float64)
    wrong = ~((weight >= 0) & weight.is_finite()).fill_null(False)
    num = frames.collect(wrong.sum()).item()
    if num:
        value = frames.collect(weight.filter(wrong).first()).item()
        raise UserError(
            f"{frames.place(wrong)} has the weight {value}; {num:,} in all are missing, "
            "negative or not finite: a weight is a number from 0 on"
        )


def scaled_weights(weight: np.ndarray, in_train: np.ndarray) -> np.ndarray:
    """Weights with a mean of 1 over training, so that they do not change the learning rate.

    Args:
        weight: ``(num_interactions,)``.
        in_train: mask of training.

    Returns:
        ``(num_interactions,)`` float32.

    Raises:
        UserError: if all training interactions have the weight 0.
    """
    values = weight.astype(np.float64)
    mean = values[in_train].mean() if in_train.any() else 1.0
    if mean == 0:
        raise UserError("the weights of all training interactions are 0: nothing is left to learn")
    scaled: np.ndarray = (values / mean).astype(np.float32)
    return scaled
