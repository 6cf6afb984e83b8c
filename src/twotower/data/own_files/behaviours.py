"""What users do, by the column that names it."""

import polars as pl

from twotower.data.own_files.files import Source
from twotower.errors import UserError
from twotower.wording import clip


def count_alike(roles: dict[str, str], frame: pl.LazyFrame, num_rows: int) -> list[str]:
    """The remark where several behaviours count alike."""
    if "behaviour" not in roles:
        return []
    counts = _counts(frame)
    if len(counts) < 2:
        return []
    shares = [f"{name} {count / num_rows:.1%}" for name, count in counts.head(6).iter_rows()]
    return [
        f"{roles['behaviour']} holds {', '.join(shares)}: all count alike; "
        f"data.reader.behaviours=[{counts[0, 0]}] keeps one, and a list of several keeps them apart"
    ]


def _counts(frame: pl.LazyFrame) -> pl.DataFrame:
    """Behaviours and how often each occurs, the most frequent first."""
    name = pl.col("behaviour").cast(pl.String)
    counted = frame.select(name).drop_nulls().group_by("behaviour").agg(count=pl.len())
    found = counted.collect(engine="streaming")
    return found.sort(["count", "behaviour"], descending=[True, False])


def check_behaviours(
    source: Source, roles: dict[str, str], frame: pl.LazyFrame, wanted: list[str]
) -> None:
    """Refuse names that no interaction has.

    Raises:
        UserError: naming those that are there.
    """
    if "behaviour" not in roles:
        raise UserError(
            f"data.reader.behaviours={wanted}: {source.path} has no column of behaviours; set "
            "data.reader.columns.behaviour"
        )
    names = _counts(frame)["behaviour"].to_list()
    for name in wanted:
        if name not in names:
            listed = ", ".join(clip(known, 30) for known in names[:8]) or "none"
            raise UserError(
                f"data.reader.behaviours: no row of {source.path} has the {roles['behaviour']} "
                f"{name}; there are {listed}"
            )
