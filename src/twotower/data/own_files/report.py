"""What people are told of their tables: what each column was taken as, and how far the tables fit together."""

import io

import polars as pl
from rich.table import Table as RichTable

from twotower.data.own_files.columns import describe
from twotower.data.own_files.errors import clip
from twotower.data.own_files.features import Side, examples
from twotower.data.own_files.files import Source
from twotower.data.own_files.values import has_text
from twotower.errors import UserError
from twotower.wording import PlainConsole


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
    table = RichTable(
        "column",
        "taken as",
        "examples",
        title="What was taken as what",
        title_style="",
        title_justify="left",
    )
    head = source.head()
    names = {column: role for role, column in roles.items()}
    table.add_row(f"{source.name}, {num_rows:,} rows", style="bold")
    for column, dtype in source.schema.items():
        role = names.get(column)
        taken = "category of the item" if role == "category" else role
        if role is None:
            taken = "not used" if has_text(dtype) else f"not used: {describe(dtype)}"
        elif meaning.get(role):
            taken = f"{role}, {meaning[role]}"
        table.add_row(f"  {clip(column, 30)}", taken, examples(head[column]))
    for other, side in sides.items():
        table.add_section()
        table.add_row(f"{other.name}, {side.num_rows:,} rows", style="bold")
        for column, taken, some in side.report:
            table.add_row(f"  {clip(column, 30)}", taken, some)
    console = PlainConsole(
        file=io.StringIO(), width=min(110, PlainConsole(stderr=True).width), color_system=None
    )
    console.print(table)
    console.print(
        "Otherwise: data.reader.columns.time=…, item_columns.category=…, item_features={price:numeric}, ignore=[…]"
    )
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def coverage(
    clicked: pl.Series, known: pl.Series, side: str, source: Source, other: Source
) -> list[str]:
    """What share of the ids has a row in the other table.

    Raises:
        UserError: if none has: then the tables do not speak of the same things.
    """
    distinct = clicked.unique()
    found = distinct.is_in(known.implode()).sum()
    if found == 0:
        raise UserError(
            f"no {side} of {source.path} ({distinct[0]!r}, say) is among the {side}s of {other.path} ({known[0]!r}, say): set "
            f"data.reader.columns.{side} and data.reader.{side}_columns.{side} to columns that hold the same ids"
        )
    if found == len(distinct):
        return []
    missing = len(distinct) - found
    return [
        f"{missing:,} of {len(distinct):,} {side}s have no row in {other.name}: their features count as missing"
    ]
