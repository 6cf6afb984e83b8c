"""Gowalla and Amazon-Book as LightGCN split them (He et al., SIGIR 2020; https://github.com/gusye1234/LightGCN-PyTorch)."""

from pathlib import Path

import polars as pl

from twotower.data.download.download import SingleFile
from twotower.data.frames import Frames
from twotower.data.readers.parse import read_sequences
from twotower.data.splits import TEST, TRAIN


class LightGCN:
    """Reads each user's training and test items, without times, order, features or categories.

    A test row whose pair is in training too is dropped and counted: what a user has seen is no
    target. Pairs that one file repeats are left to ``data.duplicates``.

    Args:
        name: of the option.
        folder: of ``train.txt`` and ``test.txt``, below ``<data_dir>/lightgcn``.
        url: official folder of both.
    """

    def __init__(self, name: str, folder: str, url: str) -> None:
        self.name = name
        self.folder = folder
        self.files = [
            SingleFile(f"{url}/{part}.txt", None, f"lightgcn/{folder}/{part}.txt")
            for part in ("train", "test")
        ]

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {"folder": self.folder}

    def sources(self, data_dir: Path) -> list[Path]:
        """The two files."""
        return [data_dir / file.path for file in self.files]

    def fetch(self, data_dir: Path) -> None:
        """Download what is missing."""
        for file in self.files:
            file.fetch(data_dir)

    def read(self, data_dir: Path) -> Frames:
        """Parse both files.

        Raises:
            UserError: for a missing, empty or malformed file, naming file and line.
        """
        train, test = (
            read_sequences(path, allow_empty=True).drop("time") for path in self.sources(data_dir)
        )
        new = test.join(train, on=["user", "item"], how="anti", maintain_order="left")
        parts = [
            frame.with_columns(part=pl.lit(part, dtype=pl.Int8))
            for frame, part in ((train, TRAIN), (new, TEST))
        ]
        interactions = pl.concat(parts).with_columns(
            time=pl.int_range(pl.len(), dtype=pl.Int32).over("user")
        )
        num_repeated = len(test) - len(new)
        return Frames(
            interactions,
            interactions.select(pl.col("user").unique()),
            interactions.select(pl.col("item").unique(), category=pl.lit(None, dtype=pl.String)),
            {},
            {},
            "order",
            dropped={"test rows that are in training too": num_repeated} if num_repeated else None,
        )
