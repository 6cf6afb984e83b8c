"""Taobao UserBehavior (Zhu et al., KDD 2018; https://tianchi.aliyun.com/dataset/649)."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import polars as pl

from twotower.data.frames import Frames
from twotower.data.readers.categories import most_frequent
from twotower.data.readers.columns import Types, csv_files, read_columns
from twotower.errors import UserError

SOURCE = "https://tianchi.aliyun.com/dataset/649"
BEHAVIOURS = ("pv", "buy", "cart", "fav")
COLUMNS: Types = {
    "user": pl.Int32,
    "item": pl.Int32,
    "category": pl.Int32,
    "behaviour": pl.Enum(BEHAVIOURS),
    "time": pl.Int64,
}
CHINA = timezone(timedelta(hours=8))


class Taobao:
    """Reads ``UserBehavior.csv``: what users did with items. One feature, the item's category.

    Args:
        behaviours: which of ``pv`` (a page view), ``buy``, ``cart``, ``fav`` to keep. With several,
            each interaction knows its own, for losses with an objective for each.
        first_day: rows before this day in China are dropped; the official file has some of other
            years. None: keep all.
        last_day: rows after this day are dropped; None: keep all.
    """

    name = "taobao"

    def __init__(self, behaviours: list[str], first_day: str | None, last_day: str | None) -> None:
        unknown = [name for name in behaviours if name not in BEHAVIOURS]
        if unknown or not behaviours or len(set(behaviours)) < len(behaviours):
            raise UserError(
                f"data.reader.behaviours must be some of {', '.join(BEHAVIOURS)}, each once, got "
                f"{behaviours}"
            )
        self.behaviours = behaviours
        self.first_day = first_day
        self.last_day = last_day
        self.start = None if first_day is None else _midnight("first_day", first_day)
        self.end = None if last_day is None else _midnight("last_day", last_day) + 86_400

    def options(self) -> dict[str, object]:
        """Settings that change the frames."""
        return {
            "behaviours": self.behaviours,
            "first_day": self.first_day,
            "last_day": self.last_day,
        }

    def sources(self, data_dir: Path) -> list[Path]:
        """The one file."""
        return csv_files(data_dir / "taobao", "UserBehavior.csv*")

    def fetch(self, data_dir: Path) -> None:
        """Nothing can be downloaded: the file needs a login.

        Raises:
            UserError: saying where it comes from, if it is not there.
        """
        if not self.sources(data_dir):
            raise UserError(
                f"{data_dir / 'taobao' / 'UserBehavior.csv'} is missing and needs a login: "
                f"download it from {SOURCE} and "
                "unpack it there, or set paths.data_dir"
            )

    def read(self, data_dir: Path) -> Frames:
        """Parse the file.

        Raises:
            UserError: for a missing, damaged or malformed file, naming file and line, or if the
                settings leave no row.
        """
        self.fetch(data_dir)
        rows = read_columns(self.sources(data_dir)[0], COLUMNS, header=False)
        items, remarks = _items(rows)
        rows, dropped = self._kept(rows.drop("category"))
        if rows.is_empty():
            raise UserError(
                f"none of {sum(dropped.values()):,} rows is left: change "
                f"data.reader.behaviours={self.behaviours}, "
                f"data.reader.first_day={self.first_day} or data.reader.last_day={self.last_day}"
            )
        users = pl.DataFrame(schema={"user": pl.Int32})
        behaviours = tuple(self.behaviours) if len(self.behaviours) > 1 else ()
        return Frames(
            rows,
            users,
            items,
            {},
            {"category": "categorical"},
            behaviours=behaviours,
            dropped=dropped,
            remarks=remarks,
        )

    def _kept(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
        """Rows of the days and behaviours asked for; rows dropped, by reason."""
        inside = pl.lit(True)
        if self.start is not None:
            inside &= pl.col("time") >= self.start
        if self.end is not None:
            inside &= pl.col("time") < self.end
        index = {name: place for place, name in enumerate(self.behaviours)}
        code = pl.col("behaviour").replace_strict(index, default=None, return_dtype=pl.Int8)
        wanted = rows.lazy().filter(inside).with_columns(behaviour=code).collect(engine="streaming")
        kept = wanted.drop_nulls("behaviour")
        dropped = {
            f"outside {self.first_day} to {self.last_day} in China": len(rows) - len(wanted),
            f"other behaviours than {', '.join(self.behaviours)}": len(wanted) - len(kept),
        }
        columns = ["user", "item", "time", *(["behaviour"] if len(self.behaviours) > 1 else [])]
        return kept.select(columns), {reason: num for reason, num in dropped.items() if num}


def _midnight(name: str, day: str) -> int:
    """Where the day begins in China, in seconds since 1970."""
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=CHINA).timestamp())
    except ValueError:
        raise UserError(f"data.reader.{name}={day} is not a day: write 2017-11-25") from None


def _items(rows: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Each item's most frequent category; a remark where an item has several."""
    count = rows.lazy().group_by("item", "category").agg(num=pl.len()).collect(engine="streaming")
    items, num = most_frequent(count)
    if not num:
        return items, ()
    return items, (
        f"taobao: {num:,} items have several categories; each takes its most frequent one",
    )
