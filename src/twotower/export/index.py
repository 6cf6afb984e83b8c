"""Faiss indexes over item vectors; scores are inner products."""

import math
from typing import Protocol

import faiss
import numpy as np

from twotower.errors import UserError, check_number


class Index(Protocol):
    """A search index of Faiss. One class, one ``conf/index``.

    Attributes:
        name: of its kind.
        parameter: Faiss' name of what trades recall for time; empty where nothing does.
        curve: values of it to measure.
    """

    name: str
    parameter: str
    curve: list[int]

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """``(num_items, dim)`` float32 to an index whose rows are the items'."""
        ...


class Flat:
    """Compares with every item: exact."""

    name = "flat"
    parameter = ""
    curve: list[int] = []

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """``(num_items, dim)`` float32 to an index whose rows are the items'."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index


class HNSW:
    """A graph of near neighbours (Malkov and Yashunin, TPAMI 2020).

    Args:
        m: links of an item.
        ef_construction: candidates while links are looked for.
        ef_search: candidates of a search.
        curve: values of ``ef_search`` to measure.
    """

    name = "hnsw"
    parameter = "efSearch"

    def __init__(self, m: int, ef_construction: int, ef_search: int, curve: list[int]) -> None:
        check_number("index.m", m, 2)
        check_number("index.ef_construction", ef_construction, 1)
        for value in (ef_search, *curve):
            check_number("index.ef_search and index.curve", value, 1)
        self.m, self.ef_construction, self.ef_search, self.curve = (
            m,
            ef_construction,
            ef_search,
            curve,
        )

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """``(num_items, dim)`` float32 to an index whose rows are the items'."""
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.hnsw.efSearch = self.ef_search
        index.add(vectors)
        return index


class IVFPQ:
    """Lists of items near a centre, their vectors product-quantised (Jégou et al., TPAMI 2011).

    Args:
        num_lists: centres; None takes ``4 √num_items``, as far as 39 items a centre are there to learn it from.
        m: parts of a vector, each with a code of its own.
        num_bits: of a code.
        num_probes: lists that a search reads.
        curve: values of ``num_probes`` to measure.
    """

    name = "ivf_pq"
    parameter = "nprobe"

    def __init__(
        self, num_lists: int | None, m: int, num_bits: int, num_probes: int, curve: list[int]
    ) -> None:
        if num_lists is not None:
            check_number("index.num_lists", num_lists, 1)
        check_number("index.m", m, 1)
        check_number("index.num_bits", num_bits, 1, 12)
        for value in (num_probes, *curve):
            check_number("index.num_probes and index.curve", value, 1)
        self.num_lists, self.m, self.num_bits, self.num_probes, self.curve = (
            num_lists,
            m,
            num_bits,
            num_probes,
            curve,
        )

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """``(num_items, dim)`` float32 to an index whose rows are the items'.

        Raises:
            UserError: for too few items, or a width that does not fit.
        """
        num_items, dim = vectors.shape
        if dim % self.m:
            raise UserError(f"index.m={self.m} must divide the width of the vectors, {dim}")
        if num_items < max(2**self.num_bits, self.num_lists or 1):
            needed = max(2**self.num_bits, self.num_lists or 1)
            raise UserError(
                f"index=ivf_pq learns {needed} codes and there are {num_items} items: use index=flat or index=hnsw"
            )
        num_lists = self.num_lists or max(1, min(int(4 * math.sqrt(num_items)), num_items // 39))
        index = faiss.index_factory(
            dim, f"IVF{num_lists},PQ{self.m}x{self.num_bits}np", faiss.METRIC_INNER_PRODUCT
        )
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
    """The best items that a user has not seen, as the README of an export finds them.

    Args:
        index: of the items.
        user: ``(num_interests, dim)`` one vector, or one for each interest: then the best of them scores an item.
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
