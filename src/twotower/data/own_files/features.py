"""Read a table of users or items: the kinds of its features, and one row for each id."""

import fnmatch
import re
from collections.abc import Callable
from typing import NamedTuple, cast

import polars as pl

from twotower.data.own_files.columns import describe
from twotower.data.own_files.content import CODE
from twotower.data.own_files.files import Source
from twotower.data.own_files.repeated import one_row_each
from twotower.data.own_files.times import MICROSECONDS_A_DAY, parse_dates
from twotower.data.own_files.values import (
    LABELS,
    NOT_AN_ID,
    as_text,
    id_readings,
    is_scalar,
    numbers,
)
from twotower.data.own_files.vectors import are_vectors, as_vectors
from twotower.data.readers.categories import primary
from twotower.errors import UserError
from twotower.types import HASHES, FeatureKind
from twotower.wording import clip

# whole numbers with more distinct values are quantities, unless the name says that they are codes
MAX_WHOLE_VALUES = 20
MAX_LABELS = 50  # so many distinct values are never too many
MAX_NAME = 50  # of a feature: files are called after it
# names that mean something else in a batch
RESERVED = {"user", "item", "title", "user_id", "item_id", "history", "latent"}
RESERVED |= {"category", "categories", *HASHES.values()}


class Side(NamedTuple):
    """A table of users or items.

    Attributes:
        frame: ``user`` or ``item``, whole numbers if all are, else text; the features, of items
            also ``category`` and ``title``.
        kinds: of the features.
        report: (column, taken as, examples) for people.
        num_rows: of the file.
    """

    frame: pl.DataFrame
    kinds: dict[str, FeatureKind]
    report: list[tuple[str, str, str]]
    num_rows: int


class Feature(NamedTuple):
    """A column as a feature.

    Attributes:
        kind: None if it is not a feature.
        values: labels, numbers, or lists of labels.
        meaning: for people.
    """

    kind: FeatureKind | None
    values: pl.Series
    meaning: str


def read_side(
    source: Source,
    side: str,
    roles: dict[str, str],
    declared: dict[str, FeatureKind],
    ignore: list[str],
    list_separator: str | None,
    vectors: Callable[[pl.Series], dict[str, pl.Series]] = lambda ids: {},
) -> Side:
    """Read a table of users or items.

    Args:
        source: its files.
        side: ``user`` or ``item``.
        roles: column of the id and, of items, ``category`` and ``title``.
        declared: kinds of features that the user states.
        ignore: columns to leave out; ``*`` and ``?`` stand for other characters.
        list_separator: text that holds it is a list of values.
        vectors: reads those from files of their own, by name, for the ids of the rows.

    Raises:
        UserError: for files that cannot be read, rows without id, values that do not fit their
            declared kind, and several different rows for one id.
    """
    source.head()  # refuses a table without rows
    table = source.collect(source.frame.select(*source.schema))
    _check_declared(source, side, declared)
    columns = {side: _ids(source, table[roles[side]])}
    kinds: dict[str, FeatureKind] = {}
    report = [(roles[side], side, examples(table[roles[side]]))]
    for name, column in table.drop(roles[side]).to_dict().items():
        if name == roles.get("title"):
            columns["title"] = column.list.join(", ") if column.dtype == LABELS else _text(column)
            feature = Feature(None, column, _with_gaps("title, for people", column))
        elif name == roles.get("category"):
            feature = _category(column, columns, kinds)
        elif any(fnmatch.fnmatch(name, pattern) for pattern in ignore):
            feature = Feature(None, column, "left out, as data.reader.ignore says")
        else:
            setting = f"data.reader.{side}_features.{name}=vector"
            feature = feature_of(column, declared.get(name), list_separator, setting)
            if feature.kind == "numeric":
                _refuse_words(source, column)
            if feature.kind is not None:
                free = _free_name(name, columns)
                columns[free], kinds[free] = feature.values, feature.kind
        if feature.kind is None and name in declared and name not in roles.values():
            raise UserError(
                f"data.reader.{side}_features.{name}={declared[name]}: {source.path} column {name} "
                f"holds {describe(column.dtype)}: remove it from that setting, or change the column"
            )
        report.append((name, feature.meaning, examples(feature.values)))
    for name, column in vectors(columns[side]).items():
        free = _free_name(name, columns)
        columns[free], kinds[free] = column, "vector"
        report.append((name, _with_gaps(_width(column), column), ""))
    frame = one_row_each(source, pl.DataFrame(columns), side, kinds)
    return Side(frame, kinds, report, len(table))


def _check_declared(source: Source, side: str, declared: dict[str, FeatureKind]) -> None:
    for name in declared:
        if name not in source.schema:
            raise UserError(
                f"data.reader.{side}_features: {name} is not a column of {source.path}; it has "
                f"{', '.join(source.schema)}"
            )


def _category(
    column: pl.Series, columns: dict[str, pl.Series], kinds: dict[str, FeatureKind]
) -> Feature:
    """Add ``category``, and ``categories`` where the column holds lists."""
    is_list = column.dtype == LABELS
    values = primary(column) if is_list else _text(column)
    columns["category"] = values
    if is_list:
        columns["categories"], kinds["categories"] = column, "multi"
    else:
        kinds["category"] = "categorical"
    return Feature(None, values, _with_gaps("category", values))


def feature_of(
    column: pl.Series, declared: FeatureKind | None, list_separator: str | None, setting: str
) -> Feature:
    """What a column is: declared, or judged by all of its values."""
    if declared == "vector" or (declared is None and are_vectors(column)):
        vectors = as_vectors(column, list_separator, setting)
        return Feature("vector", vectors, _with_gaps(_width(vectors), vectors))
    if column.dtype == LABELS and declared in (None, "multi"):
        return Feature("multi", column, _with_gaps("list feature", column))
    if not is_scalar(column.dtype):
        return Feature(None, column, f"left out: {describe(column.dtype)}")
    # names that pandas gives to its index
    if declared is None and (column.name == "" or column.name.startswith("Unnamed:")):
        return Feature(None, column, "left out: row numbers")
    text = _text(column)
    known = text.drop_nulls()
    is_split = list_separator and known.str.contains(list_separator, literal=True).any()
    if declared == "multi" or (declared is None and is_split):
        parts = _parts(text, list_separator)
        if declared or not _is_free_text(parts.explode().drop_nulls()):
            meaning = f"list feature, split at {list_separator}"
            return Feature("multi", parts, _with_gaps(meaning, parts))
    if declared is None and known.n_unique() < 2:
        return Feature(None, column, "left out: " + ("empty" if known.is_empty() else "one value"))
    if declared in (None, "numeric"):
        days = _days(column)
        if days is not None:
            return Feature("numeric", days, _with_gaps("numeric feature, days since 1970", days))
        number = pl.select(numbers(pl.lit(column), column.drop_nulls())).to_series()
        if declared or _is_quantity(column, number):
            return Feature("numeric", number, _with_gaps("numeric feature", number))
    if declared is None and _is_free_text(known):
        share = known.n_unique() / len(known)
        meaning = f"left out: free text, {share:.0%} of its values are unique"
        return Feature(None, column, meaning)
    return Feature("categorical", text, _with_gaps("categorical feature", text))


def examples(column: pl.Series) -> str:
    """A few values, or the range of numbers."""
    values = column.drop_nulls()
    if values.dtype.is_numeric() and len(values):
        ends = (cast(float, values.min()), cast(float, values.max()))
        low, high = (str(round(float(end), 4)).removesuffix(".0") for end in ends)
        return f"{low} … {high}"
    if is_scalar(values.dtype):
        values = values.head(1000).unique(maintain_order=True)
    shown = [clip(str(value), 20) for value in values.head(3).to_list()]
    long = len(", ".join(shown)) > 40
    return ", ".join(shown[:2] if long else shown)


def _width(vectors: pl.Series) -> str:
    assert isinstance(vectors.dtype, pl.Array)
    return f"vector of {vectors.dtype.shape[0]} numbers"


def _with_gaps(meaning: str, values: pl.Series) -> str:
    num_missing = values.null_count()
    return f"{meaning}, {num_missing:,} missing" if num_missing else meaning


def _text(column: pl.Series) -> pl.Series:
    return pl.select(as_text(pl.lit(column))).to_series()


def _days(column: pl.Series) -> pl.Series | None:
    """Dates as days since 1970; None if a value is not a date."""
    if column.dtype not in (pl.String, pl.Date, pl.Datetime):
        return None
    days = pl.select(parse_dates(as_text(pl.lit(column))) / MICROSECONDS_A_DAY).to_series()
    return days if days.null_count() == column.null_count() else None


def _parts(text: pl.Series, list_separator: str | None) -> pl.Series:
    if list_separator is None:
        return pl.select(pl.concat_list(pl.lit(text)).list.drop_nulls()).to_series()
    parts = text.str.split(list_separator).list.agg(pl.element().str.strip_chars())
    return parts.list.agg(pl.element().filter(pl.element() != ""))


def _is_quantity(column: pl.Series, number: pl.Series) -> bool:
    """Whether numbers measure: with a fraction, or of many values and not called a code."""
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return False
    if column.dtype == pl.String and column.str.contains(r"^[+-]?0\d").any():  # codes, as 007
        return False
    if column.dtype == pl.String and number.null_count() > column.null_count():
        return False
    if (number % 1 != 0).any():
        return True
    return number.n_unique() > MAX_WHOLE_VALUES and not CODE.search(column.name)


def _is_free_text(values: pl.Series) -> bool:
    return values.n_unique() > max(MAX_LABELS, len(values) / 2)


def _free_name(name: str, taken: dict[str, pl.Series]) -> str:
    """A name that a file and a batch can carry."""
    name = re.sub(r"\W+", "_", name)[:MAX_NAME].strip("_") or "column"
    while name in taken or name in RESERVED:
        name += "_"
    return name


def _refuse_words(source: Source, column: pl.Series) -> None:
    """Refuse text among numbers.

    Raises:
        UserError: naming the first one.
    """
    if column.dtype == pl.String and _days(column) is None:
        raw = pl.col(column.name)
        bad = raw.is_not_null() & numbers(raw, column.drop_nulls()).is_null()
        source.refuse(
            column.name, bad, f"not a number: mend it, or declare {column.name} categorical"
        )


def _ids(source: Source, column: pl.Series) -> pl.Series:
    """The ids as whole numbers if all are, else as text.

    Raises:
        UserError: for rows without an id, and ids that cannot be kept as they are.
    """
    name = column.name
    if num := column.null_count():
        where = source.place(source.frame.filter(pl.col(name).is_null()))
        raise UserError(f"{where} has no {name} ({num:,} in all): fill or remove such rows")
    for reading in id_readings(name, column.dtype, True):
        ids, lost = column.to_frame().select(ids=reading.values, lost=reading.lost)
        if not lost.any():
            return ids
    source.refuse(name, reading.lost, NOT_AN_ID)
    raise AssertionError("unreachable")
