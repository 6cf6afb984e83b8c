"""Choose the column of each role: the stated one, or one with a common name and a fitting type."""

import difflib
import re

import polars as pl

from twotower.data.own_files.files import Source
from twotower.data.own_files.values import LABELS, is_scalar
from twotower.errors import UserError
from twotower.wording import clip

# Names that public data sets and click logs use, the likeliest first, without case and punctuation
USER = "user userid uid visitorid customerid reviewerid memberid accountid clientid sessionid"
ITEM = (
    "item itemid iid asin parentasin productid movieid articleid clickarticleid newsid contentid "
    "bookid isbn trackid songid artistid videoid businessid venueid poiid gameid appid recipeid sku"
)
CATEGORY = "category categoryid categoryname categories cat catid maincategory genre genres topic"
TIME = (
    "time timestamp ts datetime date eventtime eventtimestamp clicktime clicktimestamp clickedat "
    "createdat unixreviewtime unixtime tdat"
)
INTERACTIONS = {
    "user": USER,
    "item": ITEM,
    "time": TIME,
    "value": "value rating overall stars score",
    "behaviour": "behaviour behavior behaviortype event eventtype action actiontype",
    "category": CATEGORY,
}
ITEMS = {"item": f"{ITEM} id", "category": CATEGORY, "title": "title name itemname productname"}
USERS = {"user": f"{USER} id"}
HOLDS: dict[type[pl.DataType], str] = {
    pl.List: "lists",
    pl.Array: "arrays",
    pl.Struct: "nested values",
    pl.Map: "maps",
    pl.Binary: "binary data",
    pl.Time: "times of day",
}


def choose(
    source: Source, stated: dict[str, str | None], known: dict[str, str], needed: tuple[str, ...]
) -> dict[str, str]:
    """The column of each role that has one.

    Args:
        source: the table.
        stated: by role, the column that the user states; None leaves it to the names.
        known: by role, common names, the likeliest first.
        needed: roles that must have a column.

    Raises:
        UserError: for a stated column that is not there or has a type that does not fit, or a
            needed role without a column.
    """
    setting = setting_of(source)
    chosen = {role: name for role, name in stated.items() if name is not None}
    for role, name in chosen.items():
        if name not in source.schema:
            raise UserError(
                f"{setting}.{role}={name}: {source.path} has no such column"
                f"{_nearest(name, source)}; {_listed(source)}"
            )
        _refuse_type(source, role, name)
    for role, names in known.items():
        if role in chosen:
            continue
        free = {_word(name): name for name in source.schema if name not in chosen.values()}
        found = [free[word] for word in names.split() if word in free]
        fitting = [name for name in found if _fits(role, source.schema[name])]
        if fitting:
            chosen[role] = fitting[0]
        elif found and role in (*needed, "time"):  # else clicks would be in the order of the file
            _refuse_type(source, role, found[0])
        elif role in needed:
            raise UserError(
                f"{source.path} has no column that looks like the {role}"
                f"{_nearest(role, source) or _nearest(f'{role}_id', source)}: set {setting}.{role}"
                f" (or, of text without a header, data.reader.header=[user,item,time]); "
                f"{_listed(source)}"
            )
    return chosen


def setting_of(source: Source) -> str:
    """Where the columns of a table are stated."""
    kind = source.setting.removeprefix("data.reader.")
    return "data.reader." + ("columns" if kind == "interactions" else f"{kind[:-1]}_columns")


def describe(dtype: pl.DataType) -> str:
    """What a column holds, for people."""
    held = next((words for kind, words in HOLDS.items() if dtype == kind), "unknown values")
    if isinstance(dtype, pl.List) and dtype.inner.is_float():
        held = "vectors"
    return f"{held} ({dtype.base_type().__name__.lower()})"


def _fits(role: str, dtype: pl.DataType) -> bool:
    if role == "value":
        return dtype.is_numeric() or dtype in (pl.String, pl.Null)
    return is_scalar(dtype) or (role in ("category", "title") and dtype == LABELS)


def _refuse_type(source: Source, role: str, name: str) -> None:
    dtype = source.schema[name]
    if not _fits(role, dtype):
        raise UserError(
            f"{source.path} column {clip(name, 40)} holds {describe(dtype)}, which cannot be the "
            f"{role}: set {setting_of(source)}.{role} to another column, or write it as text"
        )


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _nearest(word: str, source: Source) -> str:
    names = {name.lower(): name for name in source.schema}
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f" (did you mean {clip(names[close[0]], 40)}?)" if close else ""


def _listed(source: Source) -> str:
    names = [clip(name, 40) or "''" for name in source.schema]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}"
