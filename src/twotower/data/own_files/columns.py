"""Choose the column of each role: the stated one, or one with a common name or fitting values."""

import difflib
from functools import partial

import polars as pl

from twotower.data.own_files.content import category_columns, id_column, time_columns
from twotower.data.own_files.files import Source
from twotower.data.own_files.values import LABELS, is_scalar, numbers
from twotower.errors import UserError, results
from twotower.wording import clip, override

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
SIDES = {"users": "user", "items": "item"}  # tables, and the column of their ids
HOLDS: dict[type[pl.DataType], str] = {
    pl.List: "lists",
    pl.Array: "arrays",
    pl.Struct: "nested values",
    pl.Map: "maps",
    pl.Binary: "binary data",
    pl.Time: "times of day",
}
Columns = dict[str, str]  # by role


def choose_columns(
    sources: dict[str, Source], stated: dict[str, dict[str, str | None]], time_unit: str | None
) -> dict[str, Columns]:
    """The columns of each table: those that are stated, or have a common name, or fitting values.

    Args:
        sources: ``interactions``, and ``users`` and ``items`` where they are given.
        stated: by table and role, the column that the user states, or None.
        time_unit: as the user states it; ``step`` and ``order`` need no column of times.

    Raises:
        UserError: for stated columns that are not there or have a type that does not fit, needed
            roles without a column, and several columns that may be the times.
    """
    clicks = sources["interactions"]
    known = {"interactions": INTERACTIONS, "users": USERS, "items": ITEMS}
    for name, side in SIDES.items():
        if name in sources:
            column = stated["interactions"][side]
            names = known["interactions"][side]
            if column is None and not any(_word(name) in names.split() for name in clicks.schema):
                column = id_column(clicks, sources[name])
            if column is not None:  # a column of ids has the same name in both tables, if it can
                known["interactions"] = {**known["interactions"], side: _word(column)}
                known[name] = {**known[name], side: f"{_word(column)} {known[name][side]}"}
    attempts = [
        partial(_choose, source, stated[name], known[name]) for name, source in sources.items()
    ]
    chosen = dict(zip(sources, results(attempts), strict=True))
    roles = chosen["interactions"]
    if "value" in roles and stated["interactions"]["value"] is None:
        ratings = clicks.known(roles["value"])
        read = ratings.to_frame().select(numbers(pl.col(ratings.name), ratings)).to_series()
        if read.has_nulls():  # only the name is that of a column of ratings
            del roles["value"]
    if "time" not in roles and time_unit not in ("step", "order"):
        roles |= _time_by_values(clicks, roles)
    return chosen


def propose_categories(sources: dict[str, Source], chosen: dict[str, Columns]) -> list[str]:
    """The remark on columns whose values look like categories of items, if there are any."""
    for name in ("items", "interactions"):
        if name in sources and (found := category_columns(sources[name], chosen[name])):
            listed = ", ".join(f"{clip(name, 40)} ({num} values)" for name, num in found.items())
            setting = override(f"{setting_of(sources[name])}.category", next(iter(found)))
            return [
                f"no column of {sources[name].name} is named as the category of an item; it may "
                f"be {listed}: set {setting}"
            ]
    return []


def _time_by_values(clicks: Source, roles: Columns) -> Columns:
    found = time_columns(clicks, roles)
    if len(found) > 1:
        listed = ", ".join(clip(name, 40) for name in found)
        setting = override("data.reader.columns.time", found[0])
        raise UserError(
            f"{clicks.path} has several columns that look like times ({listed}) and none with a "
            f"common name: set the time of the interaction, {setting} say, or "
            "data.reader.time_unit=order if the rows of each user are in order of time"
        )
    return {"time": found[0]} if found else {}


def _choose(source: Source, stated: dict[str, str | None], known: dict[str, str]) -> Columns:
    """Columns of one table; the first names of ``known`` are the likeliest."""
    setting = setting_of(source)
    chosen = {role: name for role, name in stated.items() if name is not None}
    wrong = []  # everything is said at once
    for role, name in chosen.items():
        if name not in source.schema:
            near = _nearest(name, source)
            hint = f" (did you mean {clip(near, 40)}?)" if near else ""
            wrong.append(f"{setting}.{role}={name}: {source.path} has no such column{hint}")
        elif not _fits(role, source.schema[name]):
            wrong.append(_unfit(source, role, name))
    missing: dict[str, str | None] = {}
    for role, names in known.items():
        if role in chosen:
            continue
        free = {_word(name): name for name in source.schema if name not in chosen.values()}
        found = [free[name] for name in names.split() if name in free]
        fitting = [name for name in found if _fits(role, source.schema[name])]
        if fitting:
            chosen[role] = fitting[0]
        elif found and role in ("user", "item", "time"):  # else clicks would be in file order
            wrong.append(_unfit(source, role, found[0]))
        elif role in ("user", "item"):
            # customer is not the common customer_id, but likely
            likely = [free[word] for word in free if f"{word}id" in names.split()]
            near = _nearest(role, source) or _nearest(f"{role}_id", source)
            missing[role] = likely[0] if likely else near
    if missing:
        wrong.append(_not_found(source, missing))
    if wrong:
        raise UserError("; ".join([*wrong, _listed(source)]))
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
    if role in ("value", "weight"):
        return dtype.is_numeric() or dtype in (pl.String, pl.Null)
    return is_scalar(dtype) or (role in ("category", "title", "shown") and dtype == LABELS)


def _unfit(source: Source, role: str, name: str) -> str:
    return (
        f"{source.path} column {clip(name, 40)} holds {describe(source.schema[name])}, which "
        f"cannot be the {role}: set {setting_of(source)}.{role} to another column, or write it as "
        "text"
    )


def _not_found(source: Source, guesses: dict[str, str | None]) -> str:
    looked, settings = [], []
    for role, guess in guesses.items():
        name = f"{setting_of(source)}.{role}"
        looked.append(f"the {role}" + (f" (did you mean {clip(guess, 40)}?)" if guess else ""))
        settings.append(override(name, guess) if guess else f"{name}=…")
    is_clicks = source.setting == "data.reader.interactions"
    header = " (or, without a header line, data.reader.header=[user,item,time])"
    return (
        f"{source.path} has no column that looks like {' or '.join(looked)}: set "
        f"{' and '.join(settings)}{header if is_clicks else ''}"
    )


def _word(name: str) -> str:
    """A name without case and punctuation."""
    return "".join(filter(str.isalnum, name.lower()))


def _nearest(word: str, source: Source) -> str | None:
    names = {name.lower(): name for name in source.schema}
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return names[close[0]] if close else None


def _listed(source: Source) -> str:
    names = [clip(name, 40) or "''" for name in source.schema]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}"
