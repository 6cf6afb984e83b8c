"""Globo.com news clicks of October 2017 (Gabriel Moreira et al., DLRS 2018)."""

from pathlib import Path

import polars as pl

from twotower.data.frames import Frames
from twotower.data.readers.columns import csv_files, read_columns
from twotower.errors import UserError
from twotower.types import FeatureKind

SOURCE = "https://www.kaggle.com/datasets/gspmoreira/news-portal-user-interactions-by-globocom"
CLICK = {"user_id": pl.Int32, "click_article_id": pl.Int32, "click_timestamp": pl.Int64}
CONTEXT = {
    "click_environment": "environment",
    "click_deviceGroup": "device",
    "click_os": "os",
    "click_country": "country",
    "click_region": "region",
    "click_referrer_type": "referrer",
}
ARTICLE = {"article_id": pl.Int32, "category_id": pl.Int32}
DETAILS = {
    "created_at_ts": pl.Int64,
    "words_count": pl.Int32,
    "publisher_id": pl.Int32,
    "quality": pl.Int32,
}
MS_PER_DAY = 86_400_000


class Globo:
    """Reads the clicks, in one file or in shards, and the articles' metadata.

    User features: environment, device, system, country, region and referrer of the user's first
    click, which is known before anything is predicted for that user. Item features: category,
    words, day of creation, publisher where it is given.

    Args:
        clicks: patterns of the click files below ``<data_dir>/globo``; the first that finds some is
            taken.
    """

    name = "globo"

    def __init__(self, clicks: list[str]) -> None:
        self.clicks = clicks

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {"clicks": self.clicks}

    def sources(self, data_dir: Path) -> list[Path]:
        """The click files and the metadata."""
        return [*self._shards(data_dir), *_metadata(data_dir)]

    def fetch(self, data_dir: Path) -> None:
        """Nothing can be downloaded: the files need a login.

        Raises:
            UserError: saying where they come from, if there are no clicks.
        """
        if not self._shards(data_dir):
            raise UserError(
                f"{data_dir / 'globo'} holds no {' or '.join(self.clicks)}, which need a login: "
                "download them and "
                f"articles_metadata.csv from {SOURCE}, or set paths.data_dir"
            )

    def read(self, data_dir: Path) -> Frames:
        """Parse clicks and articles.

        Raises:
            UserError: for a missing, damaged or malformed file, naming file and line, and for a
                file that is there twice.
        """
        self.fetch(data_dir)
        context = dict.fromkeys(CONTEXT, pl.Int16)
        shards = [read_columns(shard, CLICK, context) for shard in self._shards(data_dir)]
        clicks = pl.concat(shards, how="diagonal")
        del shards
        clicks = clicks.rename(
            {"user_id": "user", "click_article_id": "item", "click_timestamp": "time", **CONTEXT},
            strict=False,
        )
        users = _first_context(clicks)
        clicks = clicks.select("user", "item", "time")
        items, item_kinds, remark = _articles(data_dir, clicks["item"])
        user_kinds: dict[str, FeatureKind] = dict.fromkeys(users.columns[1:], "categorical")
        return Frames(clicks, users, items, user_kinds, item_kinds, time_unit="ms", remarks=remark)

    def _shards(self, data_dir: Path) -> list[Path]:
        return csv_files(data_dir / "globo", *self.clicks)


def _first_context(clicks: pl.DataFrame) -> pl.DataFrame:
    """One row per user; a later value would tell of the user's future."""
    known = [name for name in CONTEXT.values() if name in clicks.columns]
    first = pl.col(known).sort_by("time", maintain_order=True).first()
    return clicks.lazy().group_by("user").agg(first).sort("user").collect(engine="streaming")


def _metadata(data_dir: Path) -> list[Path]:
    return csv_files(data_dir / "globo", "articles_metadata.csv*")


def _articles(
    data_dir: Path, clicked: pl.Series
) -> tuple[pl.DataFrame, dict[str, FeatureKind], tuple[str, ...]]:
    """Articles, the kinds of their features, and what to say of the metadata."""
    for path in _metadata(data_dir):
        table = read_columns(path, ARTICLE, DETAILS)
        names = {
            "article_id": "item",
            "category_id": "category",
            "words_count": "words",
            "publisher_id": "publisher",
        }
        items = table.rename(names, strict=False)
        if "created_at_ts" in table.columns:
            items = items.with_columns(created=pl.col("created_at_ts") / MS_PER_DAY)
        kinds: dict[str, FeatureKind] = {
            "category": "categorical",
            "publisher": "categorical",
            "words": "numeric",
            "created": "numeric",
        }
        kinds = {name: kind for name, kind in kinds.items() if name in items.columns}
        return items.select("item", *kinds), kinds, _remarks(path, items, clicked)
    nothing = pl.DataFrame(schema={"item": pl.Int32, "category": pl.Int32})
    where = data_dir / "globo" / "articles_metadata.csv"
    return (
        nothing,
        {},
        (f"globo: {where} is missing, so articles have neither category nor features",),
    )


def _remarks(path: Path, items: pl.DataFrame, clicked: pl.Series) -> tuple[str, ...]:
    if not items["item"].is_unique().all():
        raise UserError(
            f"{path} has the article {items['item'].filter(items['item'].is_duplicated())[0]} twice"
        )
    remarks = []
    if (
        "quality" in items.columns
        and (recovered := items.filter(pl.col("quality") > 0)["item"]).len()
    ):
        share = clicked.is_in(recovered.implode()).sum() / len(clicked)
        remarks.append(
            f"globo: {len(recovered):,} articles have a recovered category (quality > 0): "
            f"{share:.2%} of the clicks"
        )
    known = clicked.is_in(items["item"].implode())
    if not known.all():
        num = clicked.filter(~known).n_unique()
        remarks.append(
            f"globo: {num:,} clicked articles are not in {path.name}: they have neither category "
            "nor features"
        )
    return tuple(remarks)
