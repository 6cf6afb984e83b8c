"""Inverted lists: how many a corpus gets."""

import math

ITEMS_PER_CENTRE = 39  # that Faiss needs to learn a centre


def default_num_lists(num_items: int) -> int:
    """``4 √num_items``, but at most one list for the items that learning its centre takes."""
    return max(1, min(int(4 * math.sqrt(num_items)), num_items // ITEMS_PER_CENTRE))
