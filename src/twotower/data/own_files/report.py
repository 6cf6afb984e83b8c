"""Tell people how each column was interpreted, and how far their tables fit together."""

import io

import polars as pl
from rich.table import Table as RichTable

from twotower.data.own_files.columns import describe
from twotower.data.own_files.features import Side, examples
from twotower.data.own_files.files import Source
from twotower.data.own_files.values import is_scalar
from twotower.errors import UserError
from twotower.wording import PlainConsole, clip


def report(
    source: Source,
    num_rows: int,
    roles: dict[str, str],
    meaning: dict[str, str],
    sides: dict[Source, Side],
) -> str:
    """One table of all columns: what each was taken as, with examples.

    Args:
        source: the interactions.
        num_rows: of them that are kept.
        roles: their columns.
        meaning: more of a role.
        sides: the other tables.
    """
    title = "What was taken as what"
    table = RichTable(
        "column", "taken as", "examples", title=title, title_style="", title_justify="left"
    )
    head = source.head()
    names = {column: role for role, column in roles.items()}
    table.add_row(clip(source.name, 30), f"{num_rows:,} rows", style="bold")
    for column, dtype in source.schema.items():
        role = names.get(column)
        if role is None:
            taken = "not used" if is_scalar(dtype) else f"not used: {describe(dtype)}"
        elif role == "category":
            taken = "category of the item"
        else:
            taken = f"{role}, {meaning[role]}" if meaning[role] else role
        table.add_row(f"  {clip(column, 30)}", taken, examples(head[column]))
    for other, side in sides.items():
        table.add_section()
        table.add_row(clip(other.name, 30), f"{side.num_rows:,} rows", style="bold")
        for column, taken, some in side.report:
            table.add_row(f"  {clip(column, 30)}", taken, some)
    text = io.StringIO()
    width = min(110, PlainConsole(stderr=True).width)
    console = PlainConsole(file=text, width=width, color_system=None)
    console.print(table)
    console.print(
        "Otherwise, below data.reader: columns.time=…, item_columns.category=…, "
        "item_columns.title=…, item_features={price:numeric}, ignore=[…]"
    )
    return text.getvalue().rstrip()


def coverage(
    distinct: pl.Series, known: pl.Series, side: str, source: Source, other: Source
) -> list[str]:
    """How many of the distinct ids have no row in the other table.

    Raises:
        UserError: if none has one.
    """
    missing = len(distinct) - distinct.is_in(known.implode()).sum()
    if missing == len(distinct):
        raise UserError(
            f"no {side} of {source.path} ({distinct[0]!r}, say) is among the {side}s of "
            f"{other.path} ({known[0]!r}, say): set data.reader.columns.{side} and "
            f"data.reader.{side}_columns.{side} to columns that hold the same ids"
        )
    if not missing:
        return []
    return [
        f"{missing:,} of {len(distinct):,} {side}s have no row in {other.name}: their features "
        "count as missing"
    ]
