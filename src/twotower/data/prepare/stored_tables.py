"""Tables of raw ids that are read from the prepared data when they are first used, and damage."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from twotower.errors import UserError
from twotower.files import crc32


class DamagedError(UserError):
    """Prepared data that cannot be read, or differ from what was written.

    Args:
        folder: of the data.
        error: what is wrong.
    """

    def __init__(self, folder: Path, error: Exception) -> None:
        self.what = f"the prepared data in {folder} are damaged ({error})"
        super().__init__(f"{self.what}: delete that folder and run again")


class StoredTables(Mapping[str, pl.DataFrame]):
    """Parquet files by the names of their tables.

    They grow with users and items, and training and evaluation read indices alone.

    Args:
        checksums: CRC-32 of each file.
    """

    def __init__(self, checksums: dict[Path, int]) -> None:
        self._checksums = {path.stem: (path, checksum) for path, checksum in checksums.items()}
        self._read: dict[str, pl.DataFrame] = {}

    def __getitem__(self, name: str) -> pl.DataFrame:
        """The table, which stays in memory.

        Raises:
            UserError: if the file is no longer the one that belongs to the other prepared data.
        """
        if name not in self._read:
            path, expected = self._checksums[name]
            if not path.exists() or crc32(path) != expected:
                raise UserError(f"{path} has changed since this process has begun: run again")
            self._read[name] = pl.read_parquet(path, glob=False)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the tables."""
        return iter(self._checksums)

    def __len__(self) -> int:
        """Number of tables."""
        return len(self._checksums)
