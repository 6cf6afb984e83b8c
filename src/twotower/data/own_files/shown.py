"""Items that were shown beside the chosen one: lists in a column, or a table of pages."""

from typing import NamedTuple

import polars as pl

from twotower.data.own_files.files import Source
from twotower.data.own_files.values import LABELS, as_text
from twotower.errors import UserError
from twotower.wording import clip


class Pages(NamedTuple):
    """A table with a row for each item that a page showed.

    Attributes:
        source: its files.
        page: column that names the page, here and among the interactions.
        item: column of the item.
    """

    source: Source
    page: str
    item: str

    def check(self) -> None:
        """Refuse a table without these columns.

        Raises:
            UserError: naming the table and what it has.
        """
        for name in (self.page, self.item):
            if name not in self.source.schema:
                listed = ", ".join(clip(known, 40) for known in self.source.schema)
                raise UserError(
                    f"data.reader.pages: {self.source.path} has no column {name}; it has {listed} "
                    "(data.reader.columns.shown names the page, data.reader.pages_item the item)"
                )


def with_shown(
    frame: pl.DataFrame, list_separator: str | None, pages: Pages | None = None
) -> pl.DataFrame:
    """``shown``, if there is such a column, as lists of ids like those of ``item``.

    Args:
        frame: interactions; ``shown`` holds lists, or the page where there are ``pages``.
        list_separator: between the items of lists that are text.
        pages: what each page showed; the chosen item may be among its items.

    Raises:
        UserError: if no interaction is of a page in ``pages``.
    """
    if "shown" not in frame.columns:
        return frame
    if pages is not None:
        frame = frame.with_columns(shown=_of_pages(frame["shown"], pages))
    shown, kind = frame["shown"], frame["item"].dtype
    if shown.dtype != LABELS:
        parts = shown.cast(pl.String).str.split(list_separator or "|")
        shown = parts.list.agg(pl.element().str.strip_chars())
    ids = shown.list.agg(pl.element().cast(kind, strict=False).drop_nulls())
    return frame.with_columns(ids.alias("shown"))


def _of_pages(page: pl.Series, pages: Pages) -> pl.Series:
    """Lists of the items of each page, as text."""
    wanted = page.to_frame("page").select(as_text(pl.col("page")))
    rows = pages.source.frame.select(
        page=as_text(pl.col(pages.page)), shown=as_text(pl.col(pages.item))
    )
    known = wanted.lazy().unique().drop_nulls()
    lists = pages.source.collect(
        rows.drop_nulls().join(known, on="page", how="semi").group_by("page").agg("shown")
    )
    if lists.is_empty():
        raise UserError(
            f"data.reader.pages: none of the pages of the interactions (column {pages.page}) is in "
            f"{pages.source.path}"
        )
    lists = lists.with_columns(pl.col("shown").list.sort())
    return wanted.join(lists, on="page", how="left", maintain_order="left")["shown"]
