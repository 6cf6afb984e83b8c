"""Lists of all users, written to one Parquet file in a single pass with bounded memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from twotower import locks
from twotower.data.batches.present import present_features
from twotower.data.batches.rows import hidden, items_from
from twotower.errors import UserError
from twotower.files import whole_file
from twotower.retrieval.exact import encode_users
from twotower.serve.candidates import Candidates, checked_k
from twotower.serve.filters import Where
from twotower.serve.index import IndexedItems
from twotower.serve.person import context_values
from twotower.serve.retriever import Retriever
from twotower.wording import PlainConsole

MAX_USERS, MAX_ROWS = 2048, 1 << 21  # in memory at a time
OLDEST = pl.CompatLevel.oldest()  # types that every reader of Parquet knows


def check_target(target: Path, force: bool) -> None:
    """Refuse a file that must not be written, before anything is computed.

    Raises:
        UserError: for another suffix than ``.parquet``, and a file that is there without ``force``.
    """
    if target.suffix != ".parquet" or target.is_dir():
        raise UserError(f"output={target}: name a file that ends in .parquet")
    if target.exists() and not force:
        raise UserError(f"output={target} is there already: set force=true to replace it")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError("output= needs pyarrow: python -m pip install pyarrow") from None


def write_lists(
    model: Retriever,
    target: Path,
    k: int,
    seen: bool | None = None,
    where: Where = None,
    context: Mapping[str, Any] | None = None,
) -> int:
    """Write ``user`` and ``item`` (raw ids), ``rank`` and ``score``: up to ``k`` rows per user.

    The file appears when it is complete.

    Args:
        model: with its data.
        target: see :func:`check_target`.
        k: see :meth:`Retriever.recommend`, like the next two.
        seen: keep items that a user has seen?
        where: conditions on items.
        context: of all requests, see :meth:`Retriever.recommend`.

    Returns:
        The number of rows.

    Raises:
        UserError: if another process writes the file, for a ``k`` out of range, and for conditions
            that no item meets.
    """
    import pyarrow.parquet as pq  # optional

    k = checked_k(k, len(model.items.raw))
    candidates = model.candidates(where)
    mask_seen = model.data.mask_seen if seen is None else not seen
    given = context_values(model.data, context)
    users = torch.arange(len(model.users.raw)).split(max(1, min(MAX_USERS, MAX_ROWS // k)))
    num_rows = 0
    with _alone(target), whole_file(target) as partial, _progress() as progress:
        task = progress.add_task("users", total=len(model.users.raw))
        writer = None
        for chunk in users:
            lists = _lists(model, candidates, chunk, k, mask_seen, given)
            table = lists.to_arrow(compat_level=OLDEST)
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            num_rows += len(table)
            progress.advance(task, len(chunk))
        if writer:
            writer.close()
    return num_rows


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    lock = target.absolute().parent / ".locks" / target.name
    with locks.if_free(lock) as is_free:
        if not is_free:
            raise UserError(f"output={target} is being written; {locks.holder(lock)}")
        yield


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    console = PlainConsole(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _lists(
    model: Retriever,
    candidates: Candidates | IndexedItems,
    users: Tensor,
    k: int,
    mask_seen: bool | str,
    context: dict[str, Tensor],
) -> pl.DataFrame:
    """The lists of some users, one below the other."""
    data = model.data
    start, end = data.tables["offset"][users], data.tables["offset"][users + 1]
    interactions = items_from(data.tables, start, end - start)
    pairs = hidden(*interactions, users.new_zeros(len(users), 0), mask_seen)
    with torch.no_grad():
        features = present_features(data, users)
        features |= {
            name: value.expand(len(users), *value.shape[1:]) for name, value in context.items()
        }
        vectors = encode_users(model.model, features)
    score, item = candidates.best(vectors, *pairs, k)
    row, place = (score > -torch.inf).nonzero(as_tuple=True)  # the others are hidden
    table = pl.DataFrame(
        {
            "user": model.users.raw[users[row].numpy()],
            "rank": (place + 1).int().numpy(),
            "item": model.items.raw[item[row, place].numpy()],
            "score": score[row, place].numpy(),
        }
    )
    return table.with_columns(pl.col(pl.Enum, pl.Categorical).cast(pl.String))
