"""Which column is which: stated by the user, or found by the names that public data sets and click logs use."""

import difflib
import re

import polars as pl

from twotower.data.own_files.errors import clip
from twotower.data.own_files.files import Source
from twotower.data.own_files.values import has_text, is_list_of_labels
from twotower.errors import UserError

USER = "user userid uid useridentifier visitorid customerid reviewerid memberid accountid clientid profileid sessionid"
ITEM = (
    "item itemid iid asin parentasin productid movieid articleid clickarticleid newsid contentid bookid isbn trackid songid "
    "artistid videoid businessid venueid locationid poiid gameid appid recipeid listingid postid goodsid sku"
)
CATEGORY = "category categoryid categoryname cat catid maincategory categorycode genre genres department topic section"
TIME = "time timestamp ts datetime date eventtime eventtimestamp clicktime clicktimestamp unixreviewtime unixtime createdat tdat"
INTERACTIONS = {
    "user": USER,
    "item": ITEM,
    "time": TIME,
    "value": "value rating overall stars score",
    "behaviour": "behaviour behavior behaviortype event eventtype action actiontype",
    "part": "part split",
    "category": CATEGORY,
}
ITEMS = {
    "item": f"{ITEM} id",
    "category": CATEGORY,
    "title": "title name itemname productname movietitle headline",
}
USERS = {"user": f"{USER} id"}
HOLDS: dict[type[pl.DataType], str] = {
    pl.List: "lists",
    pl.Array: "arrays",
    pl.Struct: "nested values",
    pl.Map: "maps",
    pl.Binary: "binary data",
    pl.Duration: "durations",
    pl.Time: "times of day",
    pl.Date: "dates",
    pl.Datetime: "dates",
    pl.Boolean: "true and false",
}


def choose(
    source: Source, stated: dict[str, str | None], known: dict[str, str], needed: tuple[str, ...]
) -> dict[str, str]:
    """The column of each role that has one.

    Args:
        source: the table.
        stated: by role, what the user says; None leaves it to the names.
        known: by role, common names, the likeliest first.
        needed: roles without which nothing goes.

    Raises:
        UserError: for a stated column that is not there or whose type no value of the role has, or
            a needed role without a column.
    """
    setting = setting_of(source)
    names = list(source.schema)
    chosen = {}
    for role, name in stated.items():
        if name is not None and name not in names:
            raise UserError(
                f"{setting}.{role}={name}: {source.path} has no such column{_nearest(name, names)}; {_has(source)}"
            )
        if name is not None:
            chosen[role] = name
            _refuse_type(source, role, name)
    for role, likely in known.items():
        if role in chosen:
            continue
        taken = chosen.values()
        free = {_word(name): name for name in reversed(names) if name not in taken}
        found = [free[word] for word in likely.split() if word in free]
        suitable = [name for name in found if _suits(role, source.schema[name])]
        if suitable:
            chosen[role] = suitable[0]
            _refuse_twin(source, role, suitable[0])
        elif found and role in (
            *needed,
            "time",
        ):  # else the order would silently be that of the file
            _refuse_type(source, role, found[0])
        elif role in needed:
            near = _nearest(role, names) or _nearest(f"{role}_id", names)
            hint = f"set {setting}.{role}; {_has(source)}{_headerless(source)}"
            raise UserError(f"{source.path} has no column that looks like the {role}{near}: {hint}")
    return chosen


def setting_of(source: Source) -> str:
    """Where the columns of a table are stated."""
    return {"interactions": "data.reader.columns"}.get(
        kind := source.setting.split(".")[-1], f"data.reader.{kind[:-1]}_columns"
    )


def describe(dtype: pl.DataType) -> str:
    """What a column of a type that is not text, number or date holds, for people."""
    found = next(
        (words for kind, words in HOLDS.items() if dtype == kind), "values of an unknown type"
    )
    if isinstance(dtype, pl.List) and dtype.inner.is_float():
        found = "vectors"
    return f"{found} ({dtype.base_type().__name__.lower()})"


def _suits(role: str, dtype: pl.DataType) -> bool:
    if role in ("category", "title"):
        return has_text(dtype) or is_list_of_labels(dtype)
    if (
        role == "time"
    ):  # times of day are refused later: the column beside them must be chosen by the user
        return dtype.is_temporal() or (has_text(dtype) and dtype != pl.Boolean)
    if role == "value":
        return dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)
    return has_text(dtype)


def _refuse_type(source: Source, role: str, name: str) -> None:
    dtype = source.schema[name]
    if _suits(role, dtype):
        return
    cure = f"set {setting_of(source)}.{role} to another column"
    if isinstance(dtype, pl.List) and role in ("user", "item"):
        cure += f", or write one row per {role}"
    elif dtype.is_nested() and not isinstance(dtype, pl.List):
        cure += ", or write the field that is meant as a column of its own"
    elif dtype == pl.Binary:
        cure += ", or write it as text"
    raise UserError(
        f"{source.path} column {clip(name, 40)} holds {describe(dtype)}, which are no {role}: {cure}"
    )


def _refuse_twin(source: Source, role: str, name: str) -> None:
    """Refuse to choose among columns of the same name; the second one is called as Polars calls it."""
    twin = f"{name}_duplicated_0"
    if source.is_text and twin in source.schema:
        setting = f"{setting_of(source)}.{role}"
        raise UserError(
            f"{source.path} has several columns called {clip(name, 40)}: say which is the {role}, "
            f"{setting}={clip(name, 40)} (the first) or {setting}={clip(twin, 60)} (the second)"
        )


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _nearest(word: str, names: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1)
    original = [name for name in names if close and name.lower() == close[0]]
    return f" (did you mean {clip(original[0], 40)}?)" if original else ""


def _has(source: Source) -> str:
    names = [clip(name, 40) or "''" for name in source.schema]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}"


def _headerless(source: Source) -> str:
    if source.is_text and len(source.schema) == 1:
        return "; if it has several, say what separates them, data.reader.separator=' ', say"
    if not source.is_text or not any(re.fullmatch(r"[\d.:-]+", name) for name in source.schema):
        return ""
    return "; if its first line is a row, name the columns, data.reader.header=[user,item,time]"
