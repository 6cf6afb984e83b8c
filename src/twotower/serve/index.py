"""The Faiss index of an export, searched for a user's items in place of all item vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.retrieval.exact import encode_items
from twotower.retrieval.graph import search_index
from twotower.types import Model
from twotower.wording import one_line

MAX_FOUND = 1 << 21  # items in memory at a time
NUM_COMPARED = 8  # exported item vectors that the model must give too
TOLERANCE = 1e-3  # of these, relative to their largest number


class IndexedItems:
    """Finds a user's best items; an approximate index misses some of them.

    Args:
        index: of Faiss; row i is item i of the corpus.
    """

    def __init__(self, index: Any) -> None:
        self.index = index

    def best(
        self, user: Tensor, hidden_row: Tensor, hidden_item: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """Scores and corpus indices, see :func:`twotower.retrieval.exact.top_k`.

        Where the index finds fewer than ``k`` items, the scores at the end are ``-inf``.
        """
        wanted = k + torch.bincount(hidden_row, minlength=len(user))  # (batch,) items to find
        bounds = torch.searchsorted(hidden_row.contiguous(), torch.arange(len(user) + 1)).tolist()
        score = torch.full((len(user), k), -torch.inf)
        item = torch.zeros(len(user), k, dtype=torch.long)
        for rows in _alike(wanted):
            found = self._search(user[rows], int(wanted[rows].max()))
            for row, scores, items in zip(rows.tolist(), *found, strict=True):
                hidden = hidden_item[bounds[row] : bounds[row + 1]].numpy()
                kept = _kept(scores, items, hidden)[:k]
                score[row, : len(kept)] = torch.from_numpy(scores[kept])
                item[row, : len(kept)] = torch.from_numpy(items[kept])
        return score, item

    def _search(self, user: Tensor, num: int) -> list[np.ndarray]:
        """Scores and items of each user, those of all interests in a row."""
        queries = user.reshape(-1, user.shape[-1]).numpy()  # an interest each
        return [part.reshape(len(user), -1) for part in search_index(self.index, queries, num)]


def _alike(wanted: Tensor) -> Iterator[Tensor]:
    """``(num,)`` rows that want similar numbers of items, a bounded number of items at a time."""
    power = wanted.double().log2().ceil().long()
    for most in power.unique().tolist():
        rows = (power == most).nonzero().squeeze(1)
        yield from rows.split(max(1, MAX_FOUND >> most))


def _kept(scores: np.ndarray, items: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Places of the items to show, best first: each once, by the interest that likes it best."""
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(items[order], return_index=True)
    best = order[np.sort(first)]
    kept: np.ndarray = best[(items[best] >= 0) & ~np.isin(items[best], hidden)]  # -1: none found
    return kept


def open_index(
    folder: Path, data: RetrievalDataModule, model: Model, raw: pl.Series
) -> IndexedItems:
    """Read the index of an export, and compare some of its vectors with the model's.

    Args:
        folder: of the export.
        data: the data module.
        model: with its trained weights.
        raw: ids of all items.

    Raises:
        UserError: for a folder without an index, and an export of another model or of other data.
    """
    try:
        import faiss
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("export= needs faiss: pip install 'twotower[export]'") from None
    files = folder / "index.faiss", folder / "item_vectors.parquet"
    for path in files:
        if not path.is_file():
            raise UserError(f"export={folder}: it has no {path.name}: name an export with an index")
    try:
        index = faiss.read_index(str(files[0]))
        with pq.ParquetFile(files[1]) as table:
            read = table.iter_batches(NUM_COMPARED, columns=["item", "vector"])
            some: Any = pl.from_arrow(next(read))
    except Exception as error:
        raise UserError(f"export={folder} cannot be read: {one_line(error)}") from error
    rows = torch.arange(len(some))
    with torch.no_grad():
        own = encode_items(model, data.item_features(rows)).numpy()
    vectors = np.array(some["vector"].to_list(), np.float32)
    is_own = (
        index.ntotal == data.schema.num_items
        and vectors.shape == own.shape
        and some["item"].cast(pl.String).equals(raw[: len(some)].cast(pl.String))
        and np.abs(vectors - own).max() <= TOLERANCE * np.abs(own).max()
    )
    if not is_own:
        raise UserError(
            f"export={folder} is of another checkpoint or other data: export this one again"
        )
    return IndexedItems(index)
