"""Amazon and Yelp as S3-Rec prepared them (Zhou et al., CIKM 2020; https://github.com/aHuiWang/CIKM2020-S3Rec)."""

import json
from pathlib import Path

import polars as pl

from twotower.data.download.download import SingleFile
from twotower.data.frames import Frames
from twotower.data.readers.parse import read_sequences
from twotower.errors import UserError, check_number
from twotower.types import FeatureKind


class S3Rec:
    """Reads each user's items in order of time, and the items' attributes.

    There are no times, only each user's order, and no features of users. Item feature: attributes
    (multi-valued). The primary category is the most frequent of an item's attributes in the
    catalogue, of equally frequent ones the smallest; attributes that most items carry tell
    categories apart no better than none (all of Sports_and_Outdoors carry its name) and are no
    categories.

    Args:
        name: of the option.
        dataset: the files are ``<dataset>.txt`` and ``<dataset>_item2attributes.json``.
        url: official folder of both.
        sha256: checksum of the first; None: do not check.
        attributes_sha256: checksum of the second.
        max_attributes: keep an item's most frequent ones.
        max_category_share: an attribute of a larger share of the items is not a category; 1
            admits all.
    """

    def __init__(
        self,
        name: str,
        dataset: str,
        url: str,
        sha256: str | None,
        attributes_sha256: str | None,
        max_attributes: int,
        max_category_share: float,
    ) -> None:
        check_number("data.reader.max_attributes", max_attributes, 1)
        check_number("data.reader.max_category_share", max_category_share, 0, 1)
        self.name = name
        self.dataset = dataset
        self.max_attributes = max_attributes
        self.max_category_share = max_category_share
        self.sequences = _file(url, f"{dataset}.txt", sha256)
        self.attributes = _file(url, f"{dataset}_item2attributes.json", attributes_sha256)

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {
            "dataset": self.dataset,
            "max_attributes": self.max_attributes,
            "max_category_share": self.max_category_share,
        }

    def sources(self, data_dir: Path) -> list[Path]:
        """The two files."""
        return [data_dir / file.path for file in (self.sequences, self.attributes)]

    def fetch(self, data_dir: Path) -> None:
        """Download what is missing; the attributes may be missing, see :meth:`read`."""
        self.sequences.fetch(data_dir)
        try:
            self.attributes.fetch(data_dir)
        except (UserError, OSError):  # no network, or a folder that cannot be written
            return

    def read(self, data_dir: Path) -> Frames:
        """Parse both files.

        Raises:
            UserError: for malformed files, naming file and line.
        """
        interactions = read_sequences(data_dir / self.sequences.path, allow_empty=False)
        items = interactions.select(pl.col("item").unique())
        users = interactions.select(pl.col("user").unique())
        path = data_dir / self.attributes.path
        if not path.exists():
            items = items.with_columns(category=pl.lit(None, dtype=pl.String))
            remark = (
                f"{path} is missing: items have no attributes and no categories; it is "
                f"{self.attributes.url}"
            )
            return Frames(
                interactions,
                users,
                items,
                {},
                {},
                "order",
                remarks=(remark,),
                note="without item attributes",
            )
        items = items.join(
            self._described(_read_attributes(path)), on="item", how="left", maintain_order="left"
        )
        kinds: dict[str, FeatureKind] = {"attributes": "multi"}
        return Frames(interactions, users, items, {}, kinds, "order")

    def _described(self, attributes: pl.DataFrame) -> pl.DataFrame:
        """``item``, its distinct ``attributes``, the most frequent first, and its ``category``."""
        count = pl.len().over("attributes")
        pairs = attributes.explode("attributes").drop_nulls().unique().with_columns(count=count)
        pairs = pairs.sort("item", "count", "attributes", descending=[False, True, False])
        specific = pl.col("count") <= self.max_category_share * len(attributes)
        return pairs.group_by("item", maintain_order=True).agg(
            pl.col("attributes").head(self.max_attributes),
            category=pl.col("attributes").filter(specific).first().cast(pl.String),
        )


def _file(url: str, name: str, sha256: str | None) -> SingleFile:
    return SingleFile(f"{url}/{name}", f"sha256:{sha256}" if sha256 else None, f"s3rec/{name}")


def _read_attributes(path: Path) -> pl.DataFrame:
    """``item`` and a list of ``attributes``, from ``{"item": [attribute, …], …}``.

    Raises:
        UserError: naming the line that is not valid JSON, or the first item that is not a number
            with a list of numbers.
    """
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} is not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except RecursionError:
        raise UserError(f"{path} nests lists or objects hundreds deep: fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(
            f'{path} must hold {{"item": [attribute, …], …}}, got a {type(content).__name__}'
        )
    for item, attributes in content.items():
        numbers = isinstance(attributes, list) and all(
            type(attribute) is int for attribute in attributes
        )
        if not numbers or not item.isdecimal():
            raise UserError(
                f"{path}: item {item[:40]!r} must be a number with a list of numbers, got "
                f"{str(attributes)[:80]}"
            )
    columns = {"item": [int(item) for item in content], "attributes": list(content.values())}
    return pl.DataFrame(columns, schema={"item": pl.Int64, "attributes": pl.List(pl.Int64)})
