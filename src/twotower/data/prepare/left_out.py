"""Ids of the tables or the raw interactions that the prepared data lack, and why they lack them."""

import polars as pl

PREFIX = "left_out_"  # of the names of these tables
REASONS = {
    True: "the filters and the split of these data keep none of its interactions, so the model "
    "does not know it; lower data.k_core or data.min_value, or raise data.max_per_user, to keep it",
    False: "the table of {side}s has it, but no interaction does, so the model does not know it",
}


def left_out(side: str, table: pl.Series, raw: pl.Series, kept: pl.Series) -> pl.DataFrame:
    """The ids that are not kept.

    Args:
        side: ``user`` or ``item``.
        table: ids of the table of users or items, perhaps of another type.
        raw: distinct ids of the raw interactions.
        kept: distinct ids of the prepared data.

    Returns:
        The id, and ``clicked``: whether it is among the raw interactions.
    """
    known = pl.concat([raw, table.cast(raw.dtype, strict=False).drop_nulls()]).unique(
        maintain_order=True
    )
    rest = pl.DataFrame({side: known}).join(
        pl.DataFrame({side: kept}), on=side, how="anti", maintain_order="left"
    )
    return rest.with_columns(clicked=pl.col(side).is_in(raw.implode()))


def remark(side: str, table: pl.Series, rest: pl.DataFrame) -> list[str]:
    """A remark on those without an interaction, if there are any."""
    num, total = int((~rest["clicked"]).sum()), table.n_unique() - table.has_nulls()
    if num == 0:
        return []
    consequence = " and never recommends them" if side == "item" else ""
    return [
        f"{num:,} of {total:,} {side}s of the table of {side}s have no interaction: they are left "
        f"out, so the model does not know them{consequence}"
    ]


def reason(side: str, clicked: bool) -> str:
    """The reason why an id is left out."""
    return REASONS[clicked].format(side=side)
