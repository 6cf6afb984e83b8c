"""Raw ids, as people write them, to rows."""

import difflib
import re
from typing import Any

import polars as pl

from twotower.data.prepare.left_out import reason
from twotower.errors import UserError

WHOLE = re.compile(r"[+-]?\d{1,30}", re.ASCII)
MAX_COMPARED = 50_000  # spellings that a suggestion is looked for among
NUM_SUGGESTED = 3


def plain(value: Any) -> Any:
    """A scalar of numpy or torch as Python's own, and a float that is whole as a whole number."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Lookup:
    """Finds the row of a raw id.

    Args:
        raw: ``(num,)`` integers or strings, the id of each row.
        side: ``user`` or ``item``, for messages.
        title: ``(num,)`` names of the rows, null where unknown; None: there are none.
        rest: ids without a row, see :func:`~twotower.data.prepare.left_out.left_out`; None: not known.
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
        """The row of an id, None where there is no such id.

        Where ids are whole numbers, ``"42"`` is 42, else 42 is ``"42"``. Numbers of numpy and torch are numbers, and a float
        that is whole, as pandas makes them, is a whole number.
        """
        return _find(self.raw, value)

    def why_not(self, value: object) -> str | None:
        """Why an id that the tables or the raw interactions hold has no row; None for one that they do not hold."""
        place = None if self.rest is None else _find(self.rest[self.side], value)
        return (
            None
            if place is None or self.rest is None
            else reason(self.side, self.rest["clicked"][place])
        )

    def row(self, value: object) -> int:
        """The row of an id.

        Raises:
            UserError: if there is no such id, with ids that look like it.
        """
        row = self.find(value)
        if row is None:
            near = self.near(value)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            if why := self.why_not(value):
                raise UserError(f"{self.side}_id={value}: {why}")
            raise UserError(
                f"{self.side}_id={value}: there is no such {self.side} among the {len(self.raw):,} of these data{hint}"
            )
        return row

    def near(self, value: object) -> list[str]:
        """Ids whose title holds the text; else those nearest in number, or in spelling."""
        text = str(plain(value)).strip()
        if self.title is not None and len(text) > 2:
            holds = (
                self.title.str.to_lowercase()
                .str.contains(text.lower(), literal=True)
                .fill_null(False)
                .arg_true()
            )
            if len(holds):
                return [
                    f"{self.raw[row]} ({self.title[row]})"
                    for row in holds[:NUM_SUGGESTED].to_list()
                ]
        if not self.raw.dtype.is_integer():
            return difflib.get_close_matches(
                text, self.raw[:MAX_COMPARED].cast(pl.String).to_list(), NUM_SUGGESTED
            )
        if not WHOLE.fullmatch(text) or abs(int(text)) >= 2**63:
            return []
        distance = (self.raw.cast(pl.Float64) - float(text)).abs()
        return [str(self.raw[row]) for row in distance.arg_sort()[:NUM_SUGGESTED].to_list()]


def _find(raw: pl.Series, value: object) -> int | None:
    if not raw.dtype.is_integer():
        texts = [str(value).strip(), str(plain(value)).strip()]
        place = raw.cast(pl.String).is_in(texts).arg_true()
        return int(place[0]) if len(place) else None
    text = str(plain(value)).strip()
    if not WHOLE.fullmatch(text) or abs(int(text)) >= 2**63:
        return None
    place = (raw == int(text)).arg_true()
    return int(place[0]) if len(place) else None
