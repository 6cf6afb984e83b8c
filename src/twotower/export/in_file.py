"""Exact search in item vectors that stay on the disk, where an export has no index."""

import faiss
import numpy as np

from twotower.export.index import BLOCK


class NoIndex:
    """None: the item vectors alone are exported."""

    name = "none"
    parameter = ""
    curve: list[int] = []

    def plan(self, num_items: int, dim: int) -> str:
        """See :class:`~twotower.export.index.Index`."""
        return "index none: the item vectors stay on the disk"

    def build(self, vectors: np.ndarray) -> "InFile":
        """See :class:`~twotower.export.index.Index`."""
        return InFile(vectors)


class InFile:
    """Exact search in vectors that stay on the disk; each search reads all of them.

    Args:
        vectors: ``(num_items, dim)``, mapped from a file.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.ntotal, self.d = vectors.shape

    def search(self, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~twotower.export.index.Searchable`."""
        scores, rows = [], []
        for start in range(0, self.ntotal, BLOCK):
            block = self.vectors[start : start + BLOCK]
            metric = faiss.METRIC_INNER_PRODUCT
            score, row = faiss.knn(users, block, min(k, len(block)), metric)
            scores.append(score)
            rows.append(row + start)
        every, where = np.concatenate(scores, 1), np.concatenate(rows, 1)
        best = np.argsort(-every, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(every, best, 1), np.take_along_axis(where, best, 1)
