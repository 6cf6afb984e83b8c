"""MovieLens, all stable releases and the latest (Harper & Konstan, 2015; https://grouplens.org/datasets/movielens)."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from twotower.data.download.download import Archive
from twotower.data.frames import Frames
from twotower.data.readers.categories import primary
from twotower.data.readers.columns import read_columns
from twotower.data.readers.parse import read_delimited, read_quoted
from twotower.errors import UserError, check_choice
from twotower.types import FeatureKind

# groups of ages in the 1M release; 100K gives years
AGE_BOUNDS = (18, 25, 35, 45, 50, 56)
EXACT_TIMES = "ratings.timestamp_is_exact.packbits.npy"
NO_GENRES = "(no genres listed)"
Types = dict[str, type[pl.DataType]]
RATING: Types = {"user": pl.Int64, "item": pl.Int64, "value": pl.Float64, "time": pl.Int64}
COMPACT_RATING: Types = {"user": pl.Int32, "item": pl.Int32, "value": pl.Float32, "time": pl.Int64}
CSV_RATING: Types = {
    "userId": pl.Int32,
    "movieId": pl.Int32,
    "rating": pl.Float32,
    "timestamp": pl.Int64,
}
RULES = ("most_frequent", "rarest", "first")
USER_KINDS: dict[str, FeatureKind] = dict.fromkeys(
    ("gender", "age", "occupation", "zip"), "categorical"
)
ITEM_KINDS: dict[str, FeatureKind] = {"genres": "multi", "year": "categorical"}


class Tables(NamedTuple):
    """What a release holds; ``users`` is None where it says nothing of them."""

    ratings: pl.DataFrame
    users: pl.DataFrame | None
    items: pl.DataFrame


class Release(NamedTuple):
    """An official archive: its top folder, the needed files (ratings first), and their reader."""

    top: str
    files: list[str]
    read: Callable[[Path], Tables]


class MovieLens:
    """Reads the official files of one release.

    User features, in 100K and 1M alone: gender, age group, occupation, zip prefix. Item features:
    genres (multi-valued), year. The primary category is one of the item's genres, by
    ``primary_category``, counted over the whole catalogue.

    Args:
        variant: a key of ``RELEASES``: ``100k``, ``1m``, ``10m``, ``20m``, ``25m``, ``32m``,
            ``latest``, ``latest_small``.
        url: official archive.
        sha256: its checksum; None: do not check.
        num_ratings: rows of the official file; another count means a truncated or foreign file.
            None: do not check.
        primary_category: ``most_frequent`` or ``rarest`` of the item's genres in the catalogue, or
            the ``first`` listed.
        zip_digits: leading characters of the zip code to keep, where there is one; None: all.
    """

    def __init__(
        self,
        variant: str,
        url: str,
        sha256: str | None,
        num_ratings: int | None,
        primary_category: str,
        zip_digits: int | None,
    ) -> None:
        check_choice("data.reader.variant", variant, tuple(RELEASES))
        check_choice("data.reader.primary_category", primary_category, RULES)
        self.num_ratings = num_ratings
        self.primary_category = primary_category
        self.zip_digits = zip_digits
        self.name = f"movielens_{variant}"
        self.release = RELEASES[variant]
        self.archive = Archive(
            url, f"sha256:{sha256}" if sha256 else None, self.release.top, self.release.files
        )

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        names = ("primary_category", "zip_digits", "num_ratings")
        return {name: getattr(self, name) for name in names}

    def sources(self, data_dir: Path) -> list[Path]:
        """The raw files, and the mark of interpolated timestamps where one lies beside them."""
        return [data_dir / self.release.top / name for name in [*self.release.files, EXACT_TIMES]]

    def fetch(self, data_dir: Path) -> None:
        """Download and unpack the archive unless its files are there."""
        self.archive.fetch(data_dir)

    def read(self, data_dir: Path) -> Frames:
        """Parse ratings, users and items.

        Raises:
            UserError: for a malformed line or a wrong number of ratings, naming file and line.
        """
        folder = data_dir / self.release.top
        ratings, users, items = self.release.read(folder)
        if self.num_ratings is not None and len(ratings) != self.num_ratings:
            raise UserError(
                f"{folder / self.release.files[0]} has {len(ratings):,} rows, {self.num_ratings:,} "
                "expected: the file is "
                "truncated or changed; delete its folder to download it again, or set "
                "data.reader.num_ratings=null to accept it"
            )
        return Frames(
            ratings,
            self._short_zips(users)
            if users is not None
            else ratings.select(pl.col("user").unique()),
            with_category(items, self.primary_category),
            USER_KINDS if users is not None else {},
            ITEM_KINDS,
            note=_timestamp_note(folder),
        )

    def _short_zips(self, users: pl.DataFrame) -> pl.DataFrame:
        return users.with_columns(pl.col("zip").str.slice(0, self.zip_digits))


def with_category(items: pl.DataFrame, rule: str) -> pl.DataFrame:
    """``items`` with one of their ``genres`` as ``category``, null without genres."""
    genres = items["genres"]
    return items.with_columns(
        category=genres.list.first()
        if rule == "first"
        else primary(genres, most_frequent=rule == "most_frequent")
    )


def read_users_1m(folder: Path) -> pl.DataFrame:
    """``user`` and their features from the 1M release."""
    types = {
        "user": pl.Int64,
        "gender": pl.String,
        "age": pl.Int64,
        "occupation": pl.Int64,
        "zip": pl.String,
    }
    return read_delimited(folder / "users.dat", "::", types)


def read_movies_dat(folder: Path, encoding: str) -> pl.DataFrame:
    """``item``, ``title``, ``genres`` and ``year`` from ``movies.dat``."""
    types = {"item": pl.Int64, "title": pl.String, "genres": pl.String}
    return read_delimited(folder / "movies.dat", "::", types, encoding).with_columns(
        _genres(), _year()
    )


def _read_100k(folder: Path) -> Tables:
    ratings = read_delimited(folder / "u.data", "\t", RATING)
    types = {
        "user": pl.Int64,
        "age": pl.Int64,
        "gender": pl.String,
        "occupation": pl.String,
        "zip": pl.String,
    }
    users = read_delimited(folder / "u.user", "|", types)
    users = users.with_columns(
        age=pl.col("age").cut(list(AGE_BOUNDS), left_closed=True).cast(pl.String)
    )
    genres = read_delimited(folder / "u.genre", "|", {"genre": pl.String, "index": pl.Int64})[
        "genre"
    ].to_list()
    head = {
        "item": pl.Int64,
        "title": pl.String,
        "release": pl.String,
        "video": pl.String,
        "url": pl.String,
    }
    movies = read_delimited(
        folder / "u.item", "|", {**head, **dict.fromkeys(genres, pl.Int64)}, "latin-1"
    )
    flags = [pl.when(pl.col(genre) == 1).then(pl.lit(genre)) for genre in genres]
    return Tables(
        ratings,
        users,
        movies.select("item", "title", _year(), genres=pl.concat_list(flags).list.drop_nulls()),
    )


def _read_1m(folder: Path) -> Tables:
    ratings = read_delimited(folder / "ratings.dat", "::", RATING)
    return Tables(ratings, read_users_1m(folder), read_movies_dat(folder, "latin-1"))


def _read_10m(folder: Path) -> Tables:
    ratings = read_delimited(folder / "ratings.dat", "::", COMPACT_RATING)
    return Tables(ratings, None, read_movies_dat(folder, "utf-8"))


def _read_csv(folder: Path) -> Tables:
    ratings = read_columns(folder / "ratings.csv", CSV_RATING)
    ratings.columns = list(COMPACT_RATING)
    movies = read_quoted(
        folder / "movies.csv", {"movieId": pl.Int32, "title": pl.String, "genres": pl.String}
    )
    return Tables(
        ratings, None, movies.rename({"movieId": "item"}).with_columns(_genres(), _year())
    )


def _genres() -> pl.Expr:
    return pl.col("genres").str.split("|").list.filter(pl.element() != NO_GENRES)


def _year() -> pl.Expr:
    return pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64).alias("year")


def _timestamp_note(folder: Path) -> str:
    mark = folder / EXACT_TIMES
    if not mark.exists():
        return ""
    exact = np.unpackbits(np.load(mark, allow_pickle=False)).mean()
    return f"{1 - exact:.1%} of timestamps interpolated"


CSV_FILES = ["ratings.csv", "movies.csv"]
RELEASES = {
    "100k": Release("ml-100k", ["u.data", "u.user", "u.item", "u.genre"], _read_100k),
    "1m": Release("ml-1m", ["ratings.dat", "users.dat", "movies.dat"], _read_1m),
    "10m": Release("ml-10M100K", ["ratings.dat", "movies.dat"], _read_10m),
    "20m": Release("ml-20m", CSV_FILES, _read_csv),
    "25m": Release("ml-25m", CSV_FILES, _read_csv),
    "32m": Release("ml-32m", CSV_FILES, _read_csv),
    "latest": Release("ml-latest", CSV_FILES, _read_csv),
    "latest_small": Release("ml-latest-small", CSV_FILES, _read_csv),
}
