"""MovieLens 100K and 1M (Harper & Konstan, 2015; https://grouplens.org/datasets/movielens)."""

from pathlib import Path

import numpy as np
import polars as pl

from twotower.data.download import Archive
from twotower.data.frames import Frames
from twotower.data.parse import read_delimited
from twotower.types import FeatureKind, UserError, check_choice

AGE_BOUNDS = [18, 25, 35, 45, 50, 56]  # the 1M release publishes ages in these groups; 100K gives years
EXACT_TIMES = "ratings.timestamp_is_exact.packbits.npy"


class MovieLens:
    """Reads the official files of MovieLens 100K or 1M.

    User features: gender, age group, occupation, zip prefix. Item features: genres (multi-valued), year. The primary category
    is one of the item's genres, by ``primary_category``, counted over the whole catalogue.

    Args:
        variant: ``100k`` or ``1m``.
        url: official archive.
        sha256: its checksum.
        num_ratings: rows of the official file; another count means a truncated or foreign file. None: do not check.
        primary_category: ``most_frequent`` or ``rarest`` of the item's genres in the catalogue, or the ``first`` listed.
        zip_digits: leading characters of the zip code to keep.
    """

    def __init__(
        self, variant: str, url: str, sha256: str, num_ratings: int | None, primary_category: str, zip_digits: int
    ) -> None:
        check_choice("data.reader.variant", variant, ("100k", "1m"))
        check_choice("data.reader.primary_category", primary_category, ("most_frequent", "rarest", "first"))
        self.variant = variant
        self.num_ratings = num_ratings
        self.primary_category = primary_category
        self.zip_digits = zip_digits
        self.name = f"movielens_{variant}"
        self.files = (
            ["u.data", "u.user", "u.item", "u.genre"] if variant == "100k" else ["ratings.dat", "users.dat", "movies.dat"]
        )
        self.archive = Archive(url, f"sha256:{sha256}", f"ml-{variant}", self.files)

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {
            "primary_category": self.primary_category,
            "zip_digits": self.zip_digits,
            "num_ratings": self.num_ratings,
        }

    def sources(self, data_dir: Path) -> list[Path]:
        """The raw files, and the mark of interpolated timestamps where one lies beside them."""
        return [data_dir / self.archive.top / name for name in [*self.files, EXACT_TIMES]]

    def fetch(self, data_dir: Path) -> None:
        """Download and unpack the archive unless its files are there."""
        self.archive.fetch(data_dir)

    def read(self, data_dir: Path) -> Frames:
        """Parse ratings, users and items.

        Raises:
            UserError: for a malformed line or a wrong number of ratings, naming file and line.
        """
        folder = data_dir / self.archive.top
        read = self._read_100k if self.variant == "100k" else self._read_1m
        ratings, users, items = read(folder)
        if self.num_ratings is not None and len(ratings) != self.num_ratings:
            raise UserError(
                f"{folder / self.files[0]} has {len(ratings):,} rows, {self.num_ratings:,} expected: the file is truncated or "
                "changed; delete its folder to download it again, or set data.reader.num_ratings=null to accept it"
            )
        user_kinds: dict[str, FeatureKind] = dict.fromkeys(("gender", "age", "occupation", "zip"), "categorical")
        item_kinds: dict[str, FeatureKind] = {"genres": "multi", "year": "categorical"}
        return Frames(
            ratings,
            users.with_columns(pl.col("zip").str.slice(0, self.zip_digits)),
            items.with_columns(category=_primary(items["genres"], self.primary_category)),
            user_kinds,
            item_kinds,
            note=_timestamp_note(folder),
        )

    def _read_1m(self, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        ratings = read_delimited(
            folder / "ratings.dat", "::", {"user": pl.Int64, "item": pl.Int64, "value": pl.Float64, "time": pl.Int64}
        )
        users = read_delimited(
            folder / "users.dat",
            "::",
            {"user": pl.Int64, "gender": pl.String, "age": pl.Int64, "occupation": pl.Int64, "zip": pl.String},
        )
        movies = read_delimited(
            folder / "movies.dat", "::", {"item": pl.Int64, "title": pl.String, "genres": pl.String}, "latin-1"
        )
        items = movies.with_columns(pl.col("genres").str.split("|"), year=_year(pl.col("title")))
        return ratings, users, items

    def _read_100k(self, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        ratings = read_delimited(
            folder / "u.data", "\t", {"user": pl.Int64, "item": pl.Int64, "value": pl.Float64, "time": pl.Int64}
        )
        users = read_delimited(
            folder / "u.user",
            "|",
            {"user": pl.Int64, "age": pl.Int64, "gender": pl.String, "occupation": pl.String, "zip": pl.String},
        ).with_columns(age=pl.col("age").cut(AGE_BOUNDS, left_closed=True).cast(pl.String))
        genres = read_delimited(folder / "u.genre", "|", {"genre": pl.String, "index": pl.Int64})["genre"].to_list()
        head = {"item": pl.Int64, "title": pl.String, "release": pl.String, "video": pl.String, "url": pl.String}
        movies = read_delimited(folder / "u.item", "|", {**head, **dict.fromkeys(genres, pl.Int64)}, "latin-1")
        flags = [pl.when(pl.col(genre) == 1).then(pl.lit(genre)) for genre in genres]
        items = movies.select("item", "title", genres=pl.concat_list(flags).list.drop_nulls(), year=_year(pl.col("title")))
        return ratings, users, items


def _year(title: pl.Expr) -> pl.Expr:
    return title.str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64)


def _primary(genres: pl.Series, rule: str) -> pl.Series:
    """One genre per item; ties go to the first in the alphabet."""
    if rule == "first":
        return genres.list.first()
    frame = pl.DataFrame({"row": np.arange(len(genres)), "genre": genres}).explode("genre")
    count = pl.len().over("genre")
    ranked = (
        frame.drop_nulls("genre").with_columns(count=count).sort("count", "genre", descending=[rule == "most_frequent", False])
    )
    chosen = ranked.group_by("row", maintain_order=True).first()
    return pl.DataFrame({"row": np.arange(len(genres))}).join(chosen, on="row", how="left", maintain_order="left")["genre"]


def _timestamp_note(folder: Path) -> str:
    mark = folder / EXACT_TIMES
    if not mark.exists():
        return ""
    exact = np.unpackbits(np.load(mark, allow_pickle=False)).mean()
    return f"{1 - exact:.1%} of timestamps interpolated"
