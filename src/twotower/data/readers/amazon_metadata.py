"""Reads the items of the Amazon releases line by line: the files are larger than memory."""

import html
import json
import math
import re
from ast import literal_eval as python_literal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from twotower.data.readers.json_lines import lines, parse_object

MAX_LABEL_LENGTH = 100  # longer ones are texts that strayed among the labels
PRICE = re.compile(r"(?:from\s+)?\$?\s*(\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)
TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "item": pl.String,
    "category": pl.String,
    "title": pl.String,
    "labels": pl.List(pl.String),
    "brand": pl.String,
    "price": pl.Float64,
}


def read_items(
    path: Path, key: str, reviewed: pl.Series, category_level: int, max_labels: int
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Items that have reviews, and what to say of the file.

    Args:
        path: metadata of any release.
        key: the field that holds the id which reviews refer to.
        reviewed: distinct ids; only their lines are parsed.
        category_level: see :class:`~twotower.data.readers.amazon.Amazon`, like the next.
        max_labels: how many labels to keep.

    Returns:
        ``item``, ``category``, ``title``, ``labels``, ``brand``, ``price``, the first of each item;
        remarks.

    Raises:
        UserError: if the file is empty or damaged, or such a line cannot be parsed.
    """
    items: dict[str, tuple[Any, ...]] = {}
    repeated, differing = 0, 0
    for item, entry in _entries(path, key, set(reviewed.to_list())):
        row = _row(entry, category_level, max_labels)
        if item in items:
            repeated += 1
            differing += row != items[item]
        else:
            items[item] = row
    rows = [(item, *row) for item, row in items.items()]
    remarks = []
    if missing := len(reviewed) - len(items):
        remarks.append(
            f"{missing:,} of {len(reviewed):,} reviewed items are not in {path.name}: no category, "
            "no features"
        )
    if repeated:
        remarks.append(
            f"{repeated:,} lines of {path.name} repeat an item, {differing:,} with other content: "
            "the first counts"
        )
    return pl.DataFrame(rows, schema=TYPES, orient="row"), tuple(remarks)


def _entries(path: Path, key: str, wanted: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Wanted items; lines of others are skipped without parsing them where possible."""
    pattern = re.compile(rf"""["']{key}["']: ?["']([^"']+)["']""")
    for number, text in lines(path):
        seen = pattern.search(text)
        if seen and seen[1] not in wanted:
            continue
        entry = parse_object(path, number, text, (json.loads, python_literal))
        item = entry.get(key)
        if isinstance(item, str) and item in wanted:
            yield item, entry


def _row(entry: dict[str, Any], category_level: int, max_labels: int) -> tuple[Any, ...]:
    """Category, title, labels, brand, price."""
    paths = _paths(entry)
    labels = list(dict.fromkeys(label for path in paths for label in path))[:max_labels]
    category = None
    if paths:
        first = paths[0]
        category = first[-1] if category_level == -1 else first[min(category_level, len(first)) - 1]
    brand = _text(entry.get("store")) or _text(entry.get("brand"))
    return category, _text(entry.get("title")), labels, brand, _price(entry.get("price"))


def _paths(entry: dict[str, Any]) -> list[list[str]]:
    """Paths of labels, root first: several in 2014, one in 2018 and 2023 (or its main category)."""
    found = entry.get("categories") or entry.get("category") or entry.get("main_category") or []
    if isinstance(found, str):
        found = [found]
    paths = (
        [found]
        if not any(isinstance(path, list) for path in found)
        else [path for path in found if isinstance(path, list)]
    )
    cleaned = (
        [text for label in path if (text := _text(label)) and len(text) <= MAX_LABEL_LENGTH]
        for path in paths
    )
    return [path for path in cleaned if path]


def _text(value: Any) -> str | None:
    return html.unescape(value).strip() or None if isinstance(value, str) else None


def _price(value: Any) -> float | None:
    """Dollars of ``12.99``, ``"$1,012.99"``, ``"from 5"``, the lower end of a range; else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    found = PRICE.match(value.strip()) if isinstance(value, str) else None
    return float(found[1].replace(",", "")) if found else None
