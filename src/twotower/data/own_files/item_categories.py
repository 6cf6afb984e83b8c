"""The category of an item, where only the interactions have it."""

import polars as pl

from twotower.data.own_files.files import Source
from twotower.data.own_files.values import LABELS, Reading, as_text
from twotower.data.readers.categories import most_frequent


def item_categories(
    source: Source, roles: dict[str, str], item: Reading, id_type: pl.DataType
) -> tuple[pl.DataFrame, str]:
    """The category of each item among the interactions; each value of a list counts.

    Args:
        source: the interactions.
        roles: their columns.
        item: how the ids of items are read.
        id_type: the type of the ids.

    Returns:
        ``item`` and its most frequent ``category`` (ties to the first in the alphabet); a remark.
    """
    name = roles["category"]
    is_list = source.schema[name] == LABELS
    category = pl.col(name) if is_list else as_text(pl.col(name))
    pairs = source.frame.select(item=item.values.cast(id_type), category=category)
    if is_list:
        pairs = pairs.explode("category")
    counts = pairs.drop_nulls().group_by("item", "category").agg(num=pl.len())
    found, num_unclear = most_frequent(source.collect(counts))
    several = f"; {num_unclear:,} items have several" if num_unclear else ""
    remark = f"the category of an item is its most frequent {name} among the interactions{several}"
    return found, remark
