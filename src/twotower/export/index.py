"""Faiss indexes over item vectors; scores are inner products."""

from typing import Protocol

import faiss
import numpy as np

from twotower.errors import UserError, check_number
from twotower.retrieval.inverted_lists import default_num_lists


class Index(Protocol):
    """A search index of Faiss. Each class is an option of ``conf/index``.

    Attributes:
        name: of the option.
        parameter: Faiss' name of the setting that trades recall for time; empty if there is none.
        curve: values of the parameter to measure.
    """

    name: str
    parameter: str
    curve: list[int]

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """``(num_items, dim)`` float32 to an index with a row for each item."""
        ...


class Flat:
    """Exact: compares with every item."""

    name = "flat"
    parameter = ""
    curve: list[int] = []

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """See :class:`Index`."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index


class HNSW:
    """A graph of near neighbours (Malkov and Yashunin, TPAMI 2020).

    Args:
        m: links of an item.
        ef_construction: candidates when links are made.
        ef_search: candidates of a search.
        curve: values of ``ef_search`` to measure.
    """

    name = "hnsw"
    parameter = "efSearch"

    def __init__(self, m: int, ef_construction: int, ef_search: int, curve: list[int]) -> None:
        check_number("index.m", m, 2)
        for value in (ef_construction, ef_search, *curve):
            check_number("index.ef_construction, index.ef_search and index.curve", value, 1)
        self.m = m
        self.ef_construction = ef_construction
        self.ef_search = ef_search
        self.curve = curve

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """See :class:`Index`."""
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.hnsw.efSearch = self.ef_search
        index.add(vectors)
        return index


class IVFPQ:
    """Inverted lists of product-quantised vectors (Jégou et al., TPAMI 2011).

    Args:
        num_lists: None: ``4 √num_items``, but at most one list for 39 items, which Faiss needs to
            learn its centre.
        m: parts of a vector, each with a code.
        num_bits: of a code.
        num_probes: lists that a search reads.
        curve: values of ``num_probes`` to measure.
    """

    name = "ivf_pq"
    parameter = "nprobe"

    def __init__(
        self, num_lists: int | None, m: int, num_bits: int, num_probes: int, curve: list[int]
    ) -> None:
        check_number("index.m", m, 1)
        check_number("index.num_bits", num_bits, 1, 12)
        for value in (1 if num_lists is None else num_lists, num_probes, *curve):
            check_number("index.num_lists, index.num_probes and index.curve", value, 1)
        self.num_lists = num_lists
        self.m = m
        self.num_bits = num_bits
        self.num_probes = num_probes
        self.curve = curve

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """See :class:`Index`.

        Raises:
            UserError: for too few items, or a width that ``m`` does not divide.
        """
        num_items, dim = vectors.shape
        if dim % self.m:
            raise UserError(f"index.m={self.m} must divide the width of the vectors, {dim}")
        needed = max(2**self.num_bits, self.num_lists or 1)
        if num_items < needed:
            raise UserError(
                f"index=ivf_pq learns {needed} codes and there are {num_items} items: use "
                "index=flat or index=hnsw"
            )
        num_lists = self.num_lists or default_num_lists(num_items)
        kind = f"IVF{num_lists},PQ{self.m}x{self.num_bits}np"
        index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        tune(index, self.parameter, self.num_probes)
        return index


def tune(index: faiss.Index, parameter: str, value: int) -> None:
    """Set the parameter that trades recall for time."""
    faiss.ParameterSpace().set_index_parameter(index, parameter, value)


def search(
    index: faiss.Index, user: np.ndarray, seen: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best unseen items, found as in the README of an export.

    Args:
        index: of the items.
        user: ``(num_interests, dim)``; an item's score is its best over the interests.
        seen: rows of items to leave out.
        k: how many.

    Returns:
        Rows and scores, best first, at most ``k`` each.
    """
    scores, rows = (found.ravel() for found in index.search(user, min(index.ntotal, k + len(seen))))
    order = np.lexsort((-rows, -scores))
    scores, rows = scores[order], rows[order]
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    kept = first[(rows[first] >= 0) & ~np.isin(rows[first], seen)][:k]
    return rows[kept], scores[kept]
