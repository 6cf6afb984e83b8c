"""Finds the rows of raw ids."""

import difflib
from typing import Any

import polars as pl

from twotower.data.prepare.left_out import reason
from twotower.errors import UserError

MAX_COMPARED = 50_000  # ids that are compared for a similar spelling
NUM_SUGGESTED = 3


def plain(value: Any) -> Any:
    """Python's own scalar for one of NumPy or torch; a float that is whole becomes an integer."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Lookup:
    """Finds the row of a raw id.

    Args:
        raw: ``(num,)`` integers or strings, the id of each row.
        side: ``user`` or ``item``, for messages.
        title: ``(num,)`` names of the rows, null where unknown; None: there are no names.
        rest: ids without a row, see :func:`~twotower.data.prepare.left_out.left_out`; None:
            not known.
    """

    def __init__(
        self,
        raw: pl.Series,
        side: str,
        title: pl.Series | None = None,
        rest: pl.DataFrame | None = None,
    ) -> None:
        self.raw = raw
        self.rest = rest
        self.side = side
        self.title = title

    def find(self, value: object) -> int | None:
        """The row of an id, None for an unknown id.

        Where ids are integers, ``"42"`` is 42; where they are strings, 42 is ``"42"``. Numbers of
        NumPy and torch are numbers, and a whole float, as pandas makes them, is an integer.
        """
        return _find(self.raw, value)

    def why_not(self, value: object) -> str | None:
        """Why preparation left out an id that the raw data have; None if they do not have it."""
        if self.rest is None:
            return None
        place = _find(self.rest[self.side], value)
        return None if place is None else reason(self.side, self.rest["clicked"][place])

    def row(self, value: object, setting: str | None = None) -> int:
        """The row of an id.

        Args:
            value: the id.
            setting: in which it is given, for the error; None: ``user_id`` or ``item_id``.

        Raises:
            UserError: for an unknown id, with similar ids.
        """
        row = self.find(value)
        if row is not None:
            return row
        setting = setting or f"{self.side}_id={value}"
        if why := self.why_not(value):
            raise UserError(f"{setting}: {why}")
        near = self.near(value)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(
            f"{setting}: there is no such {self.side} among the {len(self.raw):,} of these "
            f"data{hint}"
        )

    def near(self, value: object) -> list[str]:
        """Ids with the text in their title; else those nearest in number or in spelling."""
        text = str(plain(value)).strip()
        if self.title is not None and len(text) > 2:
            has_text = self.title.str.to_lowercase().str.contains(text.lower(), literal=True)
            rows = has_text.fill_null(False).arg_true()[:NUM_SUGGESTED].to_list()
            if rows:
                return [f"{self.raw[row]} ({self.title[row]})" for row in rows]
        if not self.raw.dtype.is_integer():
            ids = self.raw[:MAX_COMPARED].cast(pl.String).to_list()
            return difflib.get_close_matches(text, ids, NUM_SUGGESTED)
        number = pl.Series([text]).cast(pl.Int64, strict=False)[0]
        if number is None:
            return []
        distance = (self.raw.cast(pl.Float64) - number).abs()
        return [str(self.raw[row]) for row in distance.arg_sort()[:NUM_SUGGESTED].to_list()]


def _find(raw: pl.Series, value: object) -> int | None:
    wanted = pl.Series([str(value).strip(), str(plain(value)).strip()])
    if raw.dtype.is_integer():
        wanted = wanted.cast(raw.dtype, strict=False).drop_nulls()
    else:
        raw = raw.cast(pl.String)
    rows = raw.is_in(wanted.implode()).arg_true()
    return int(rows[0]) if len(rows) else None
