"""Choose for each column of a large table the reading that loses nothing, in as few passes as can be."""

import polars as pl

from twotower.data.own_files.files import Source, not_blank
from twotower.data.own_files.values import Reading

LOST = "_lost"  # ends the names of columns that mark the values which a reading would lose


def num_missing_of(frame: pl.DataFrame, role: str) -> int:
    """How many values of a role are not there; those that its reading loses are."""
    return int((frame[role].is_null() & ~frame[f"{role}{LOST}"]).sum())


def read(source: Source, readings: dict[str, list[Reading]]) -> tuple[pl.DataFrame, dict[str, Reading]]:
    """All columns in one pass, each in the first of its readings that loses the fewest values.

    Nearly always it is the first one; two passes more are needed where it loses any.

    Args:
        source: the table, with plain columns.
        readings: of each role, the most compact one first.

    Returns:
        A column of values for each role, and one that marks what is lost; the readings.
    """
    chosen = {role: several[0] for role, several in readings.items()}
    frame = _collect(source, chosen)
    doubtful = [role for role, several in readings.items() if len(several) > 1 and frame[f"{role}{LOST}"].any()]
    if not doubtful:
        return frame, chosen
    lost = {f"{role}{place}": reading.lost.sum() for role in doubtful for place, reading in enumerate(readings[role])}
    counts = source.collect(lambda rows: not_blank(source, rows).select(**lost)).sum()
    for role in doubtful:
        num_lost = [counts[f"{role}{place}"][0] for place in range(len(readings[role]))]
        chosen[role] = readings[role][num_lost.index(min(num_lost))]
    return _collect(source, chosen), chosen


def _collect(source: Source, chosen: dict[str, Reading]) -> pl.DataFrame:
    columns = {role: reading.values for role, reading in chosen.items()}
    columns |= {f"{role}{LOST}": reading.lost for role, reading in chosen.items()}
    return source.collect(lambda rows: not_blank(source, rows).select(**columns))
