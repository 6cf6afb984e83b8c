"""Arrays with an entry for each interaction, worked on in blocks, in memory or in files."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from twotower.errors import UserError
from twotower.wording import one_line

BLOCK = 1_000_000  # interactions worked on at once, about what a processor's cache holds

Column = np.ndarray | pl.Series


class Storage:
    """Makes arrays in memory, or in files of a folder that the system may page out.

    Args:
        folder: of the files; None: in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._num = 0

    def new(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """An array without values.

        Raises:
            UserError: if the disk is full.
        """
        if self.folder is None or 0 in shape:  # a file of no bytes cannot be mapped
            return np.empty(shape, dtype)
        self._num += 1
        path = self.folder / f"array-{self._num}"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # else a full disk would end the process later
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        except OSError as error:
            raise full_disk(self.folder.parent, error) from error
        return np.memmap(path, dtype, "r+", shape=shape)

    def indices(self, mask: np.ndarray) -> np.ndarray:
        """``np.flatnonzero`` as int32 where that is enough."""
        small = np.int32 if len(mask) < 2**31 else np.int64
        found, end = self.new((int(mask.sum()),), small), 0
        for rows in blocks(len(mask)):
            own = np.flatnonzero(mask[rows])
            found[end : end + len(own)] = own + rows.start
            end += len(own)
        return found

    def take(self, column: Column, mask: np.ndarray) -> Column:
        """The entries of a column that a mask marks."""
        if isinstance(column, pl.Series):
            kept: pl.Series = column.filter(pl.Series(mask))
            return kept
        found, end = self.new((int(mask.sum()), *column.shape[1:]), column.dtype), 0
        for rows in blocks(len(mask)):
            own = column[rows][mask[rows]]
            found[end : end + len(own)] = own
            end += len(own)
        return found


def full_disk(folder: Path, error: Exception, setting: str = "data.engine_folder") -> UserError:
    """The error of a file that could not be written below a folder, which ``setting`` names."""
    reason = getattr(error, "strerror", None) or one_line(error)
    return UserError(
        f"{folder} cannot be written ({reason}): free space there, or set {setting} to another"
    )


def blocks(num: int) -> Iterator[slice]:
    """``num`` rows in blocks."""
    for start in range(0, num, BLOCK):
        yield slice(start, min(start + BLOCK, num))


def user_blocks(user: np.ndarray) -> Iterator[slice]:
    """Rows in blocks that hold all rows of their users.

    Args:
        user: ``(num_interactions,)``, equal ones adjacent.
    """
    start = 0
    while start < len(user):
        end = start + BLOCK
        while end < len(user) and user[end] == user[end - 1]:
            end += 1
        yield slice(start, min(end, len(user)))
        start = end


def counts(codes: np.ndarray, num: int, mask: np.ndarray | None = None) -> np.ndarray:
    """``(num,)`` how often each of the numbers from 0 to ``num`` occurs.

    Args:
        codes: ``(num_interactions,)`` integers.
        num: of different ones.
        mask: ``(num_interactions,)`` of those that count; None: all.
    """
    found = np.zeros(num, dtype=np.int64)
    for rows in blocks(len(codes)):
        own = codes[rows] if mask is None else codes[rows][mask[rows]]
        if len(own):
            least = int(own.min())
            here = np.bincount(own - least)
            found[least : least + len(here)] += here
    return found
