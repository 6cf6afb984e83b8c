"""Which column is which: stated by the user, or found by the names that public data sets and click logs use."""

import difflib
import re

from twotower.data.table_errors import clip
from twotower.data.table_files import Source
from twotower.types import UserError

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
ITEMS = {"item": f"{ITEM} id", "category": CATEGORY, "title": "title name itemname productname movietitle headline"}
USERS = {"user": f"{USER} id"}


def choose(source: Source, stated: dict[str, str | None], known: dict[str, str], needed: tuple[str, ...]) -> dict[str, str]:
    """The column of each role that has one.

    Args:
        source: the table.
        stated: by role, what the user says; None leaves it to the names.
        known: by role, common names, the likeliest first.
        needed: roles without which nothing goes.

    Raises:
        UserError: for a stated column that is not there, or a needed role without a column.
    """
    setting = setting_of(source)
    names = list(source.schema)
    chosen = {}
    for role, name in stated.items():
        if name is not None and name not in names:
            raise UserError(f"{setting}.{role}={name}: {source.path} has no such column{_nearest(name, names)}; {_has(source)}")
        if name is not None:
            chosen[role] = name
    for role, likely in known.items():
        free = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names) if name not in chosen.values()}
        found = next((free[word] for word in likely.split() if word in free), None)
        if stated.get(role) is None and found is not None:
            chosen[role] = found
        elif role in needed and role not in chosen:
            near = _nearest(role, names) or _nearest(f"{role}_id", names)
            hint = f"set {setting}.{role}; {_has(source)}{_headerless(source)}"
            raise UserError(f"{source.path} has no column that looks like the {role}{near}: {hint}")
    return chosen


def setting_of(source: Source) -> str:
    """Where the columns of a table are stated."""
    return {"interactions": "data.reader.columns"}.get(kind := source.setting.split(".")[-1], f"data.reader.{kind[:-1]}_columns")


def _nearest(word: str, names: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1)
    original = [name for name in names if close and name.lower() == close[0]]
    return f" (did you mean {clip(original[0], 40)}?)" if original else ""


def _has(source: Source) -> str:
    names = [clip(name, 40) or "''" for name in source.schema]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}"


def _headerless(source: Source) -> str:
    if not source.is_text or not any(re.fullmatch(r"[\d.:-]+", name) for name in source.schema):
        return ""
    return "; if its first line is a row, name the columns, data.reader.header=[user,item,time]"
