"""Items that were shown beside a positive and not chosen: its given negatives."""

import numpy as np
import polars as pl

from twotower.data.prepare.lists import places

MAX_SHOWN = 100  # of one interaction; the first are kept


def shown_items(
    shown: pl.Series, item_ids: pl.Series, row: np.ndarray, num_train: int
) -> np.ndarray:
    """Lists of raw ids as numbers of training items.

    Args:
        shown: ``(num_interactions,)`` lists of ids, or null.
        item_ids: distinct ids, sorted.
        row: ``(num_ids,)`` number of each id, -1 where it was dropped.
        num_train: items from this number on are not in training.

    Returns:
        ``(num_interactions, width)``, -1 where an item is not in training and at the end.
    """
    lists = shown.list.head(MAX_SHOWN).fill_null([])
    length = lists.list.len().to_numpy()
    width = max(1, int(length.max(initial=0)))
    known = lists.filter(lists.list.len() > 0).explode()
    code = known.cast(item_ids.dtype, strict=False).replace_strict(
        item_ids, np.arange(len(item_ids)), default=-1, return_dtype=pl.Int32
    )
    number = np.append(row, -1)[code.fill_null(-1).to_numpy()]
    table = np.full((len(shown), width), -1, dtype=np.int32)
    table[places(length)] = np.where(number < num_train, number, -1)
    return table
