"""Amazon reviews: 2014 (He & McAuley), 2018 (Ni et al., 2019) and 2023 (Hou et al., 2024)."""

# ruff: noqa: SIM905  (as a list, the names of the categories fill a screen)
import difflib
from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.download.download import SingleFile
from twotower.data.frames import Frames, TimeUnit
from twotower.data.readers.amazon_metadata import read_items
from twotower.data.readers.json_lines import read_json_lines
from twotower.errors import UserError, check_choice, check_number
from twotower.types import FeatureKind

SHARED = """Automotive Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry
Digital_Music Electronics Grocery_and_Gourmet_Food Home_and_Kitchen Kindle_Store Movies_and_TV
Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors
Tools_and_Home_Improvement Toys_and_Games Video_Games""".split()
SHARED_SINCE_2018 = """All_Beauty Appliances Arts_Crafts_and_Sewing Gift_Cards
Industrial_and_Scientific Magazine_Subscriptions Software""".split()
ONLY_2014 = "Amazon_Instant_Video Apps_for_Android Baby Beauty Health_and_Personal_Care".split()
ONLY_2018 = "AMAZON_FASHION Luxury_Beauty Prime_Pantry".split()
ONLY_2023 = """Amazon_Fashion Baby_Products Beauty_and_Personal_Care Handmade_Products
Health_and_Household Health_and_Personal_Care Subscription_Boxes Unknown""".split()
SNAP = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
UCSD = "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2"
LAB = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"


class Generation(NamedTuple):
    """One release.

    Attributes:
        reviews: address of a category's reviews; ``{}`` is the category. The file keeps its name.
        metadata: address of its items.
        fields: of a review: user, item, rating, time.
        time_unit: of the time.
        categories: official names.
    """

    reviews: str
    metadata: str
    fields: tuple[str, str, str, str]
    time_unit: TimeUnit
    categories: list[str]


OLD_FIELDS = ("reviewerID", "asin", "overall", "unixReviewTime")
GENERATIONS = {
    2014: Generation(
        f"{SNAP}/reviews_{{}}_5.json.gz",
        f"{SNAP}/meta_{{}}.json.gz",
        OLD_FIELDS,
        "s",
        [*SHARED, *ONLY_2014],
    ),
    2018: Generation(
        f"{UCSD}/categoryFilesSmall/{{}}_5.json.gz",
        f"{UCSD}/metaFiles2/meta_{{}}.json.gz",
        OLD_FIELDS,
        "s",
        [*SHARED, *SHARED_SINCE_2018, *ONLY_2018],
    ),
    2023: Generation(
        f"{LAB}/review_categories/{{}}.jsonl.gz",
        f"{LAB}/meta_categories/meta_{{}}.jsonl.gz",
        ("user_id", "parent_asin", "rating", "timestamp"),
        "ms",
        [*SHARED, *SHARED_SINCE_2018, *ONLY_2023],
    ),
}


class Amazon:
    """Reads the reviews of one category and its items. No user features.

    Item features: category labels (multi-valued), brand (store in 2023), price. Reviews of 2014
    and 2018 are the official 5-core files; those of 2023 are complete. Without the metadata file,
    which is several times larger, every category is missing; a remark and a note say so.

    Args:
        category: official name, such as ``Musical_Instruments``; names differ between generations.
        generation: 2014, 2018 or 2023.
        category_level: level of an item's first path of labels that is its primary category: 1 is
            the root, -1 the deepest. A shorter path gives its last label.
        max_labels: how many of an item's labels are a feature; 2018 has stray texts among them.
    """

    def __init__(
        self, category: str | None, generation: int, category_level: int, max_labels: int
    ) -> None:
        check_choice("data.reader.generation", str(generation), tuple(map(str, GENERATIONS)))
        check_number("data.reader.category_level", category_level, -1)
        check_number("data.reader.max_labels", max_labels, 1)
        if category_level == 0:
            raise UserError(
                "data.reader.category_level=0 is not a level: 1 is the root, 2 below it, -1 the "
                "deepest"
            )
        self.generation = GENERATIONS[generation]
        if category is None or category not in self.generation.categories:
            raise UserError(_unknown(category or "", generation))
        self.category_level = category_level
        self.max_labels = max_labels
        self.name = f"amazon_{generation}_{category}"
        folder = f"amazon-{generation}"
        urls = (self.generation.reviews.format(category), self.generation.metadata.format(category))
        self.reviews, self.metadata = (
            SingleFile(url, None, f"{folder}/{url.rpartition('/')[2]}") for url in urls
        )

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {"category_level": self.category_level, "max_labels": self.max_labels}

    def sources(self, data_dir: Path) -> list[Path]:
        """Reviews and metadata."""
        return [*self.reviews.paths(data_dir), *self.metadata.paths(data_dir)]

    def fetch(self, data_dir: Path) -> None:
        """Download what is missing; the metadata may be.

        Raises:
            UserError: if the reviews cannot be downloaded.
        """
        self.reviews.fetch(data_dir)
        try:
            self.metadata.fetch(data_dir)
        except UserError:  # read() finds them missing and says so
            return

    def read(self, data_dir: Path) -> Frames:
        """Parse reviews and items.

        Raises:
            UserError: for a missing, damaged or malformed file, naming file and line.
        """
        user, item, value, time = self.generation.fields
        types = {user: pl.String, item: pl.String, value: pl.Float32, time: pl.Int64}
        reviews = read_json_lines(data_dir / self.reviews.path, types)
        reviews = reviews.rename({user: "user", item: "item", value: "value", time: "time"})
        users = pl.DataFrame(schema={"user": pl.String})
        metadata = data_dir / self.metadata.path
        if not metadata.exists():
            items = pl.DataFrame(schema={"item": pl.String, "category": pl.String})
            remark = (
                f"{self.name}: {metadata} is missing, so items have neither category nor features; "
                f"it is {self.metadata.url}"
            )
            note = "no metadata: every category is missing"
            return Frames(
                reviews,
                users,
                items,
                {},
                {},
                self.generation.time_unit,
                remarks=(remark,),
                note=note,
            )
        items, remarks = read_items(
            metadata, item, reviews["item"].unique(), self.category_level, self.max_labels
        )
        kinds: dict[str, FeatureKind] = {
            "labels": "multi",
            "brand": "categorical",
            "price": "numeric",
        }
        remarks = tuple(f"{self.name}: {remark}" for remark in remarks)
        return Frames(reviews, users, items, {}, kinds, self.generation.time_unit, remarks=remarks)


def _unknown(category: str, generation: int) -> str:
    known = sorted(GENERATIONS[generation].categories)
    words = set(category.lower().split("_")) - {"and"}
    near = [
        name for name in known if words & set(name.lower().split("_"))
    ] or difflib.get_close_matches(category, known)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    fault = f"={category} is none of {generation}{hint}" if category else " is not set"
    return f"data.reader.category{fault}; the categories of {generation} are {', '.join(known)}"
