"""Copies of the records of a report that hold nothing of the data, to be published with it."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from twotower.errors import UserError
from twotower.files import whole_file
from twotower.report.ranks import Ranks
from twotower.report.runs import Run
from twotower.run.run_folder import RunFolder
from twotower.run.search_files import ABOUT, TRIALS


def check_names(target: Path, counted: Iterable[Run], searches: Iterable[Path]) -> None:
    """Refuse runs and searches of one name, before anything is written; arguments of ``keep``.

    Raises:
        UserError: naming it.
    """
    names = Counter([*(run.name for run in counted), *(folder.name for folder in searches)])
    for name, count in names.items():
        if count > 1:
            raise UserError(
                f"keep={target}: two folders are named {name}; give them in two reports"
            )


def keep(target: Path, counted: Iterable[Run], searches: Iterable[Path]) -> None:
    """Copy what a report needs of each run and each search; it can be read again from there.

    Ranks are kept without the items and their categories, users by their place: intervals over
    users stay, gains by category do not.

    Args:
        target: folder of the copies, by the names of the runs and of the searches, see
            :func:`check_names`.
        counted: runs of the report.
        searches: folders of searches.
    """
    for run in counted:
        copy = RunFolder(target / run.name)
        copy.path.mkdir(parents=True, exist_ok=True)
        _copy(RunFolder(run.folder).record, copy.record)
        if isinstance(run.ranks, Ranks):
            with whole_file(copy.ranks) as partial:
                without_items(run.ranks).write_parquet(partial, compression="zstd")
    for folder in searches:
        copied_to = target / folder.name
        copied_to.mkdir(parents=True, exist_ok=True)
        for name in (ABOUT, TRIALS):
            _copy(folder / name, copied_to / name)


def without_items(ranks: Ranks) -> pl.DataFrame:
    """The columns of :class:`Ranks`: users and each one's targets counted from 0, no category."""
    frame = pl.DataFrame({"user": ranks.user, "rank": ranks.rank})
    return frame.select(
        user=pl.col("user").rle_id(),
        item=pl.int_range(pl.len()).over(pl.col("user").rle_id()),
        category=pl.lit(-1),
        rank="rank",
    ).cast(pl.Int32)


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
