"""Raw ids, as people write them, to rows."""

import difflib

import polars as pl

from twotower.types import UserError

MAX_COMPARED = 50_000  # spellings that a suggestion is looked for among
NUM_SUGGESTED = 3


class Lookup:
    """Finds the row of a raw id.

    Args:
        raw: ``(num,)`` integers or strings, the id of each row.
        side: ``user`` or ``item``, for messages.
        title: ``(num,)`` names of the rows, null where unknown; None: there are none.
    """

    def __init__(self, raw: pl.Series, side: str, title: pl.Series | None = None) -> None:
        self.raw = raw
        self.side = side
        self.title = title

    def find(self, value: object) -> int | None:
        """The row of an id, None where there is no such id. Where ids are whole numbers ``"42"`` is 42, else 42 is ``"42"``."""
        text = str(value).strip()
        if self.raw.dtype.is_integer():
            if not text.lstrip("+-").isdecimal() or abs(int(text)) >= 2**63:
                return None
            place = (self.raw == int(text)).arg_true()
        else:
            place = (self.raw.cast(pl.String) == text).arg_true()
        return int(place[0]) if len(place) else None

    def row(self, value: object) -> int:
        """The row of an id.

        Raises:
            UserError: if there is no such id, with ids that look like it.
        """
        row = self.find(value)
        if row is None:
            near = self.near(value)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UserError(
                f"{self.side}_id={value}: there is no such {self.side} among the {len(self.raw):,} of these data{hint}"
            )
        return row

    def near(self, value: object) -> list[str]:
        """Ids whose title holds the text; else those nearest in number, or in spelling."""
        text = str(value).strip()
        if self.title is not None and len(text) > 2:
            holds = self.title.str.to_lowercase().str.contains(text.lower(), literal=True).fill_null(False).arg_true()
            if len(holds):
                return [f"{self.raw[row]} ({self.title[row]})" for row in holds[:NUM_SUGGESTED].to_list()]
        if not self.raw.dtype.is_integer():
            return difflib.get_close_matches(text, self.raw[:MAX_COMPARED].cast(pl.String).to_list(), NUM_SUGGESTED)
        if not text.lstrip("+-").isdecimal() or abs(int(text)) >= 2**63:
            return []
        distance = (self.raw.cast(pl.Float64) - float(text)).abs()
        return [str(self.raw[row]) for row in distance.arg_sort()[:NUM_SUGGESTED].to_list()]
