"""Search in an index of Faiss, with enough candidates where it is a graph."""

from typing import Any

import numpy as np


def search_index(index: Any, vectors: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows, each ``(num_vectors, num)`` or of all items if there are fewer, best first.

    A graph (HNSW) finds few more items than its search has candidates, so it gets at least ``num``.
    """
    num = min(index.ntotal, num)
    given = {}
    if hasattr(index, "hnsw"):
        import faiss  # optional

        wide: Any = faiss.SearchParametersHNSW  # type: ignore[attr-defined]
        given["params"] = wide(efSearch=max(num, index.hnsw.efSearch))
    scores, rows = index.search(vectors, num, **given)
    return scores, rows
