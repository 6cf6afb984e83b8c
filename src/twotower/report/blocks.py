"""The report as its parts: data sets, and blocks over several of them or of a search."""

from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from twotower.report.answer import Answer
from twotower.report.grid import Grid
from twotower.report.runs import LeftOut
from twotower.report.section import Section


class Plot(NamedTuple):
    """A picture of a block.

    Attributes:
        name: of its file, without the block's.
        draw: makes it.
        alt: what it shows, in words.
    """

    name: str
    draw: Callable[[], Figure]
    alt: str


class Block(NamedTuple):
    """Sentences, tables and pictures under one title.

    Attributes:
        name: begins the names of its files.
        title: its heading.
        answers: sentences on top.
        tables: by their headings.
        plots: the pictures.
        words: what the words of its tables mean.
        rows: unrounded, for the CSV file.
    """

    name: str
    title: str
    answers: list[Answer]
    tables: dict[str, Grid]
    plots: list[Plot]
    words: dict[str, str]
    rows: list[dict[str, Any]]


class Report(NamedTuple):
    """What every format shows.

    Attributes:
        sections: one for each data set.
        left_out: runs that are not counted, or not everywhere.
        across: over the data sets, before them.
        searches: one for each search, after the data sets.
    """

    sections: list[Section]
    left_out: list[LeftOut]
    across: tuple[Block, ...] = ()
    searches: tuple[Block, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Everything that is no data set."""
        return self.across + self.searches
