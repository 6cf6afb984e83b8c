"""Indexes over item vectors, by Faiss; scores are inner products."""

from typing import Protocol

import faiss
import numpy as np

from twotower.errors import UserError, check_number
from twotower.retrieval.graph import search_index
from twotower.retrieval.inverted_lists import default_num_lists

BLOCK = 1 << 16  # vectors read from the disk at a time
LEARNT_FROM = 64  # items for each centre and each code; Faiss asks for 39 or more
MEBIBYTE = 2**20


class Searchable(Protocol):
    """What finds the items with the largest inner products: Faiss' indexes and ``InFile``.

    Attributes:
        ntotal: number of items.
        d: width of a vector.
    """

    ntotal: int
    d: int

    def search(self, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """``(num, d)`` to scores and rows, each ``(num, k)``, best first."""
        ...


class Index(Protocol):
    """A search index. Each class is an option of ``conf/index``.

    Attributes:
        name: of the option.
        parameter: Faiss' name of the setting that trades recall for time; empty if there is none.
        curve: values of the parameter to measure.
    """

    name: str
    parameter: str
    curve: list[int]

    def plan(self, num_items: int, dim: int) -> str:
        """One line about the memory that :meth:`build` takes.

        Raises:
            UserError: if it cannot be built of so many items, or of this width.
        """
        ...

    def build(self, vectors: np.ndarray) -> Searchable:
        """``(num_items, dim)`` float32 to an index with a row for each item.

        The vectors may be mapped from a file: they are read in blocks.
        """
        ...


class Flat:
    """Exact: compares with every item."""

    name = "flat"
    parameter = ""
    curve: list[int] = []

    def plan(self, num_items: int, dim: int) -> str:
        """See :class:`Index`."""
        return f"index flat: {_size(4 * num_items * dim)} in memory, all item vectors"

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """See :class:`Index`."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        _add(index, vectors)
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

    def plan(self, num_items: int, dim: int) -> str:
        """See :class:`Index`."""
        size = num_items * (4 * dim + 8 * self.m)  # 2 m links of 4 bytes in the lowest layer
        return f"index hnsw: {_size(size)} in memory, all item vectors and their links"

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """See :class:`Index`."""
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.hnsw.efSearch = self.ef_search
        _add(index, vectors)
        return index


class IVFPQ:
    """Inverted lists of product-quantised vectors (Jégou et al., TPAMI 2011).

    Args:
        num_lists: None: ``4 √num_items``, but at most one list for 39 items, which Faiss needs to
            learn its centre.
        m: parts of a vector, each with a code; None: the largest divisor of the width that is at
            most a quarter of it.
        num_bits: of a code.
        training_items: random items that centres and codes are learnt from; None: 64 for each
            centre and each value of a code, at most all items.
        num_probes: lists that a search reads.
        curve: values of ``num_probes`` to measure.
    """

    name = "ivf_pq"
    parameter = "nprobe"

    def __init__(
        self,
        num_lists: int | None,
        m: int | None,
        num_bits: int,
        training_items: int | None,
        num_probes: int,
        curve: list[int],
    ) -> None:
        check_number("index.m", 1 if m is None else m, 1)
        check_number("index.num_bits", num_bits, 1, 12)
        check_number("index.training_items", training_items or 1, 1)
        for value in (1 if num_lists is None else num_lists, num_probes, *curve):
            check_number("index.num_lists, index.num_probes and index.curve", value, 1)
        self.num_lists = num_lists
        self.m = m
        self.num_bits = num_bits
        self.training_items = training_items
        self.num_probes = num_probes
        self.curve = curve

    def plan(self, num_items: int, dim: int) -> str:
        """See :class:`Index`."""
        num_lists, m, num_learnt = self._sizes(num_items, dim)
        code = -(-m * self.num_bits // 8)  # bytes
        centres = 4 * dim * (num_lists + 2**self.num_bits)
        size = num_items * (code + 8) + centres  # Faiss keeps an id of 8 bytes with each code
        return (
            f"index ivf_pq: {num_lists:,} lists, {code} bytes for an item, learnt from "
            f"{num_learnt:,} of {num_items:,} items ({_size(4 * num_learnt * dim)}); "
            f"{_size(size)} in memory, up to twice that while lists grow"
        )

    def build(self, vectors: np.ndarray) -> faiss.Index:
        """See :class:`Index`.

        Raises:
            UserError: see :meth:`plan`.
        """
        num_items, dim = vectors.shape
        num_lists, m, num_learnt = self._sizes(num_items, dim)
        kind = f"IVF{num_lists},PQ{m}x{self.num_bits}np"
        index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(_spread_rows(vectors, num_learnt))
        _add(index, vectors)
        tune(index, self.parameter, self.num_probes)
        return index

    def _sizes(self, num_items: int, dim: int) -> tuple[int, int, int]:
        """Lists, parts of a vector, and items to learn from.

        Raises:
            UserError: for too few items, or a width that ``m`` does not divide.
        """
        m = self.m or max(part for part in range(1, max(1, dim // 4) + 1) if dim % part == 0)
        if dim % m:
            raise UserError(f"index.m={m} must divide the width of the vectors, {dim}")
        num_lists = self.num_lists or default_num_lists(num_items)
        needed = max(2**self.num_bits, num_lists)
        if num_items < needed:
            raise UserError(
                f"index=ivf_pq learns {needed} codes and there are {num_items} items: use "
                "index=flat or index=hnsw"
            )
        num_learnt = min(num_items, self.training_items or LEARNT_FROM * needed)
        if num_learnt < needed:
            raise UserError(
                f"index.training_items={num_learnt} are fewer than the {needed} codes to learn: "
                "raise it"
            )
        return num_lists, m, num_learnt


def _spread_rows(vectors: np.ndarray, num: int) -> np.ndarray:
    """``(num, dim)`` a random row of each of ``num`` equal parts, in memory."""
    bounds = np.arange(num + 1) * len(vectors) // num
    return vectors[np.random.default_rng(0).integers(bounds[:-1], bounds[1:])]


def _add(index: faiss.Index, vectors: np.ndarray) -> None:
    for start in range(0, len(vectors), BLOCK):
        index.add(vectors[start : start + BLOCK])


def _size(num_bytes: int) -> str:
    return f"{num_bytes / MEBIBYTE:,.0f} MiB"


def tune(index: Searchable, parameter: str, value: int) -> None:
    """Set the parameter that trades recall for time."""
    space = faiss.ParameterSpace()
    space.set_index_parameter(index, parameter, value)  # type: ignore[arg-type]  # of Faiss' own


def search(
    index: Searchable, user: np.ndarray, seen: np.ndarray, k: int
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
    scores, rows = (found.ravel() for found in search_index(index, user, k + len(seen)))
    order = np.lexsort((-rows, -scores))
    scores, rows = scores[order], rows[order]
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    kept = first[(rows[first] >= 0) & ~np.isin(rows[first], seen)][:k]
    return rows[kept], scores[kept]
