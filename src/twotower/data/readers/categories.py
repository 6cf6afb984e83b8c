"""Chooses one primary category for items that have several."""

import polars as pl


def primary(lists: pl.Series, most_frequent: bool = True) -> pl.Series:
    """The value of each list that is most (or least) frequent in the column; ties by alphabet.

    Args:
        lists: ``(num_items,)`` lists of text; an empty or missing one gives null.
        most_frequent: else the rarest.
    """
    rows = pl.DataFrame(
        {"row": pl.int_range(len(lists), eager=True), "value": lists.cast(pl.List(pl.String))}
    )
    ranked = rows.explode("value").drop_nulls("value").with_columns(count=pl.len().over("value"))
    ranked = ranked.sort("count", "value", descending=[most_frequent, False])
    best = ranked.unique("row", keep="first", maintain_order=True)
    return rows.select("row").join(best, on="row", how="left", maintain_order="left")["value"]


def most_frequent(counts: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The category that each item was seen in most often.

    Args:
        counts: distinct pairs of ``item`` and ``category``, and ``num``, how often each was seen.

    Returns:
        ``item``, ascending, and ``category``, the smallest of equally frequent ones; how many items
        have several.
    """
    ranked = counts.sort("item", "num", "category", descending=[False, True, False])
    best = ranked.unique("item", keep="first", maintain_order=True).select("item", "category")
    return best, counts["item"].filter(counts["item"].is_duplicated()).n_unique()
