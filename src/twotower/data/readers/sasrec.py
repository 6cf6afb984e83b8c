"""MovieLens-1M as SASRec prepared it (Kang & McAuley, ICDM 2018; https://github.com/kang205/SASRec)."""

from pathlib import Path

import polars as pl

from twotower.data.download.download import SingleFile
from twotower.data.frames import Frames
from twotower.data.readers.movielens import (
    ITEM_KINDS,
    RULES,
    USER_KINDS,
    read_movies_dat,
    read_users_1m,
    with_category,
)
from twotower.data.readers.parse import read_delimited
from twotower.errors import UserError, check_choice

MAPS = {"user": "sas_to_original_users.txt", "item": "sas_to_original_items.txt"}
ORIGINALS = ("users.dat", "movies.dat")


class SASRec:
    """Reads each user's items in order of time; the file has neither times nor original ids.

    Features, titles and categories are those of :class:`~twotower.data.readers.movielens.MovieLens`
    1M, where ``<data_dir>/ml-1m`` and two maps are there:
    ``<data_dir>/sasrec/sas_to_original_users.txt`` and ``…_items.txt``, lines of SASRec's and the
    original id. Without them the data have none.

    Args:
        url: official file.
        sha256: its checksum; None: do not check.
        primary_category: ``most_frequent`` or ``rarest`` of the item's genres in the catalogue, or
            the ``first`` listed.
        zip_digits: leading characters of the zip code to keep; None: all.
    """

    name = "sasrec_movielens_1m"

    def __init__(
        self, url: str, sha256: str | None, primary_category: str, zip_digits: int | None
    ) -> None:
        check_choice("data.reader.primary_category", primary_category, RULES)
        self.primary_category = primary_category
        self.zip_digits = zip_digits
        self.file = SingleFile(url, f"sha256:{sha256}" if sha256 else None, "sasrec/ml-1m.txt")

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {"primary_category": self.primary_category, "zip_digits": self.zip_digits}

    def sources(self, data_dir: Path) -> list[Path]:
        """The file and what its features come from."""
        return [data_dir / self.file.path, *_describing(data_dir)]

    def fetch(self, data_dir: Path) -> None:
        """Download the file unless it is there; the other files are optional."""
        self.file.fetch(data_dir)

    def read(self, data_dir: Path) -> Frames:
        """Parse the file, and users and films where they are known.

        Raises:
            UserError: for a malformed file, naming file and line.
        """
        rows = read_delimited(data_dir / self.file.path, " ", {"user": pl.Int64, "item": pl.Int64})
        rows = rows.with_columns(time=pl.int_range(pl.len(), dtype=pl.Int32).over("user"))
        missing = [str(path) for path in _describing(data_dir) if not path.exists()]
        if missing:
            items = rows.select(pl.col("item").unique(), category=pl.lit(None, dtype=pl.String))
            remark = (
                f"without {', '.join(missing)} these data have no features and no categories: put "
                "them there"
            )
            return Frames(
                rows,
                rows.select(pl.col("user").unique()),
                items,
                {},
                {},
                "order",
                remarks=(remark,),
                note="no features",
            )
        users = read_users_1m(data_dir / "ml-1m").with_columns(
            pl.col("zip").str.slice(0, self.zip_digits)
        )
        items = with_category(read_movies_dat(data_dir / "ml-1m", "latin-1"), self.primary_category)
        users, items = _renamed(data_dir, users, "user"), _renamed(data_dir, items, "item")
        return Frames(rows, users, items, USER_KINDS, ITEM_KINDS, "order")


def _describing(data_dir: Path) -> list[Path]:
    return [data_dir / "sasrec" / name for name in MAPS.values()] + [
        data_dir / "ml-1m" / name for name in ORIGINALS
    ]


def _renamed(data_dir: Path, table: pl.DataFrame, side: str) -> pl.DataFrame:
    """``table`` with SASRec's ids instead of the original ones.

    Raises:
        UserError: if the map names an id twice.
    """
    path = data_dir / "sasrec" / MAPS[side]
    ids = read_delimited(path, " ", {"sas": pl.Int64, side: pl.Int64})
    for name in ids.columns:
        for twice in ids.filter(~pl.col(name).is_first_distinct())[name].head(1):
            raise UserError(
                f"{path} maps {twice} twice: the data would have rows for two {side}s at once"
            )
    return ids.join(table, on=side, how="inner").drop(side).rename({"sas": side})
