"""Tables of users and items: kinds of features inferred from their values, one row for each id."""

import fnmatch
import re
from typing import Any, NamedTuple

import polars as pl

from twotower.data.own_files.columns import describe
from twotower.data.own_files.errors import clip
from twotower.data.own_files.files import Source
from twotower.data.own_files.times import looks_like_dates
from twotower.data.own_files.values import (
    NESTED,
    as_text,
    has_text,
    id_readings,
    is_list_of_labels,
    is_made_decimal,
    made_whole,
    numbers,
)
from twotower.data.readers.categories import primary
from twotower.errors import UserError
from twotower.types import FeatureKind

MAX_WHOLE_VALUES = 20  # whole numbers with more distinct values are quantities, unless the name says that they are codes
FEW = 50  # so many distinct values are never too many
CODE = re.compile(r"(^|[_\W])(id|code|zip|postcode|zipcode|key|no)$|Id$|ID$")
LONGEST_NAME = 50  # of a feature: files are called after it
OURS = (
    "user",
    "item",
    "title",
    "user_id",
    "item_id",
    "history",
    "latent",
)  # names that mean something else in a batch


class Side(NamedTuple):
    """A table of users or items.

    Attributes:
        frame: ``user`` or ``item``, whole numbers if all are, else text; the features, of items also ``category`` and ``title``.
        kinds: of the features.
        report: (column, taken as, examples) for people.
        num_rows: of the file.
    """

    frame: pl.DataFrame
    kinds: dict[str, FeatureKind]
    report: list[tuple[str, str, str]]
    num_rows: int


class Column(NamedTuple):
    """How a column becomes a feature: its kind, None where it is none, the expression, and what is said about it."""

    kind: FeatureKind | None
    values: pl.Expr
    meaning: str


def read_side(
    source: Source,
    side: str,
    roles: dict[str, str],
    declared: dict[str, FeatureKind],
    ignore: list[str],
    list_separator: str | None,
) -> Side:
    """Read a table of users or items.

    Args:
        source: its files, with plain columns.
        side: ``user`` or ``item``.
        roles: column of the id and, of items, ``category`` and ``title``.
        declared: kinds of features that the user states.
        ignore: columns to leave out; ``*`` and ``?`` stand for other characters.
        list_separator: text that holds it is a list of values.

    Raises:
        UserError: for files that cannot be read, rows without id, values that do not fit their declared kind, and
            several different rows for one id.
    """
    table = source.collect(lambda rows: rows.select(*source.schema))
    if table.is_empty():
        raise UserError(
            f"{source.path} has a header and no rows: give a table with rows in {source.setting}"
        )
    if unknown := [name for name in declared if name not in table.columns]:
        raise UserError(
            f"data.reader.{side}_features: {unknown[0]} is no column of {source.path}; it has {', '.join(table.columns)}"
        )
    id_column, title, category = roles[side], roles.get("title"), roles.get("category")
    report = [(id_column, side, examples(table[id_column]))]
    columns = {side: pl.lit(_ids(source, table, id_column))}
    kinds: dict[str, FeatureKind] = {}
    if title:
        columns["title"] = _title(table[title])
        report.append((title, _told("title, for people", table[title]), examples(table[title])))
    for name in table.columns:
        if name in (id_column, title):
            continue
        if any(fnmatch.fnmatch(name, pattern) for pattern in ignore) and name != category:
            report.append((name, "left out, as data.reader.ignore says", ""))
            continue
        kind, values, meaning = column_of(
            table[name], declared.get(name), list_separator, is_category=name == category
        )
        if kind is None:
            if name in declared:
                raise UserError(
                    f"data.reader.{side}_features.{name}={declared[name]}: {source.path} column {name} holds "
                    f"{describe(table[name].dtype)}: take it out of that setting, or change the column"
                )
            report.append((name, meaning, examples(table[name])))
            continue
        read = table.select(values.alias(name)).to_series()
        if name == category:
            kinds["categories" if kind == "multi" else "category"] = kind
            if kind == "multi":
                columns |= {"category": pl.lit(primary(read)), "categories": values}
                meaning = "category, the most frequent of a list"
            else:
                cure = "mend it, or set data.reader.item_columns.category to another column"
                source.refuse(
                    name,
                    read.cast(pl.String).str.contains(NESTED).fill_null(False),
                    f"no category: {cure}",
                )
                columns["category"] = values
                meaning = "category"
        else:
            if kind == "numeric" and table[name].dtype == pl.String:
                bad = table[name].is_not_null() & read.is_null()
                source.refuse(name, bad, f"no number: mend it, or declare {name} categorical")
            feature = _free_name(name, [*columns, "category", "categories"])
            columns[feature], kinds[feature] = values, kind
        shown = read if kind == "numeric" else table[name]
        report.append((name, _told(meaning, shown), examples(shown)))
    frame = _one_row_each(
        source, table.select(values.alias(name) for name, values in columns.items()), side, kinds
    )
    return Side(frame, kinds, report, len(table))


def column_of(
    column: pl.Series, declared: FeatureKind | None, list_separator: str | None, is_category: bool
) -> Column:
    """What a column is: declared, or judged by all of its values."""
    raw, dtype = pl.col(column.name), column.dtype
    values = column.drop_nulls()
    if is_list_of_labels(dtype) and declared in (None, "multi"):
        return Column("multi", raw.cast(pl.List(pl.String)), "list feature")
    if not has_text(dtype) and dtype != pl.Duration:
        return Column(None, raw, f"left out: {describe(dtype)}")
    if declared is None and (
        column.name == "" or column.name.startswith("Unnamed:")
    ):  # pandas' names for its index
        return Column(None, raw, "left out: row numbers")
    if declared == "numeric" or (
        declared is None and not is_category and _is_quantity(column.name, values)
    ):
        number, unit = _number(raw, values)
        return Column("numeric", number, f"numeric feature{unit}")
    text = _label(raw, values)
    strings = values.to_frame().select(text).to_series()
    if declared == "multi" or (
        declared is None
        and list_separator
        and strings.str.contains(list_separator, literal=True).any()
    ):
        parts = _parts(text, list_separator)
        if declared or not _is_free_text(
            column.to_frame().select(parts).to_series().explode().drop_nulls()
        ):
            return Column("multi", parts, f"list feature, split at {list_separator}")
    if declared == "categorical" or is_category:
        return Column("categorical", text, "categorical feature")
    if strings.n_unique() < 2:
        return Column(None, raw, "left out: " + ("one value" if len(strings) else "empty"))
    if dtype.is_temporal():
        number, unit = _number(raw, values)
        return Column("numeric", number, f"numeric feature{unit}")
    if (days := looks_like_dates(strings)) is not None:
        return Column("numeric", days, "numeric feature, days since 1970")
    if _is_free_text(strings):
        return Column(
            None,
            raw,
            f"left out: free text, {strings.n_unique() / len(strings):.0%} of its values are unique",
        )
    return Column("categorical", text, "categorical feature")


def _number(raw: pl.Expr, values: pl.Series) -> tuple[pl.Expr, str]:
    """A column as numbers, and what is said of their unit."""
    dtype = values.dtype
    if isinstance(dtype, pl.Duration):
        return raw.dt.total_seconds(fractional=True), ", seconds"
    if dtype == pl.Time:
        return raw.cast(pl.Int64) / 1e9, ", seconds of the day"
    if dtype.is_temporal():
        return raw.cast(pl.Datetime("ms")).dt.epoch("ms") / 86_400_000, ", days since 1970"
    return numbers(values, raw), ""


def _label(raw: pl.Expr, values: pl.Series) -> pl.Expr:
    """A column as text."""
    if isinstance(values.dtype, pl.Duration):
        return as_text(raw.dt.total_seconds(fractional=True), pl.Float64())
    text = as_text(raw, values.dtype)
    return made_whole(text) if is_made_decimal(values) else text


def _parts(text: pl.Expr, list_separator: str | None) -> pl.Expr:
    if list_separator is None:
        return pl.concat_list(text).list.drop_nulls()
    parts = text.str.split(list_separator).list.agg(pl.element().str.strip_chars())
    return parts.list.filter(pl.element() != "")


def _title(column: pl.Series) -> pl.Expr:
    if isinstance(column.dtype, pl.List):
        return pl.col(column.name).cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
    return as_text(pl.col(column.name), column.dtype)


def _told(meaning: str, values: pl.Series) -> str:
    num_missing = values.null_count()
    return f"{meaning}, {num_missing:,} missing" if num_missing else meaning


def _is_quantity(name: str, values: pl.Series) -> bool:
    """Numbers that measure: with a fraction, or of many values and no code by name or by a leading zero."""
    if not values.dtype.is_numeric() and values.dtype != pl.String:
        return False
    if values.dtype == pl.String and values.str.contains(r"^[+-]?0\d").any():
        return False
    found = values.to_frame().select(numbers(values, pl.col(values.name))).to_series()
    if found.is_empty() or (values.dtype == pl.String and found.has_nulls()):
        return False
    found = found.drop_nulls()
    if found.n_unique() < 2:
        return False
    return bool((found % 1 != 0).any()) or (
        found.n_unique() > MAX_WHOLE_VALUES and not CODE.search(name)
    )


def _is_free_text(values: pl.Series) -> bool:
    return values.n_unique() > max(FEW, len(values) / 2)


def _free_name(name: str, taken: list[str]) -> str:
    """A name that a file and a batch can carry."""
    name = re.sub(r"\W+", "_", name)[:LONGEST_NAME].strip("_") or "column"
    while name in taken or name in OURS:
        name += "_"
    return name


def examples(column: pl.Series) -> str:
    """A few values, or the range of numbers."""
    values = column.drop_nulls()
    if values.dtype.is_numeric() and len(values):
        ends: tuple[Any, Any] = (values.min(), values.max())
        low, high = (str(round(float(end), 4)).removesuffix(".0") for end in ends)
        return f"{low} … {high}"
    if not has_text(values.dtype):
        return ", ".join(clip(str(value), 20) for value in values.head(2).to_list())
    some = values.head(1000).unique(maintain_order=True).head(3).cast(pl.String, strict=False)
    return ", ".join(clip(str(value), 20) for value in some)


def _ids(source: Source, table: pl.DataFrame, column: str) -> pl.Series:
    """The ids as whole numbers if all are, else as text.

    Raises:
        UserError: for rows without an id, and ids that cannot be kept as they are.
    """
    source.refuse_gap(column, table[column], "fill or remove such rows")
    for reading in id_readings(table[column], True, source.is_json):
        ids, lost = table.select(ids=reading.values, lost=reading.lost)
        if not lost.any():
            break
    source.refuse(column, lost, "no id that can be kept: write ids as whole numbers or text")
    return ids


def _one_row_each(
    source: Source, frame: pl.DataFrame, side: str, kinds: dict[str, FeatureKind]
) -> pl.DataFrame:
    """Rows that repeat what is known are dropped; rows that contradict each other are not for us to choose from."""
    compared = frame.select(side, *kinds)
    if compared[side].n_unique() < len(compared):
        for name in kinds:
            several = (
                compared.select(side, name)
                .unique(maintain_order=True)
                .filter(pl.col(side).is_duplicated())
            )
            if len(several):
                first = several[side][0]
                one, two = (
                    clip(str(value), 30)
                    for value in several.filter(pl.col(side) == first)[name].head(2).to_list()
                )
                raise UserError(
                    f"{source.path} has {several[side].n_unique():,} {side}s with several rows that differ: {side} "
                    f"{clip(str(first), 40)!r} has the {name} {one!r} and {two!r}: keep one row per {side}, "
                    f"or leave the column out, data.reader.ignore=[{name}]"
                )
        frame = frame.unique(side, keep="first", maintain_order=True)
    return frame
