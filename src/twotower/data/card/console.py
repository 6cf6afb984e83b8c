"""The data card on the screen."""

import re
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from twotower.data.card.findings import percent
from twotower.data.card.spread import QUANTILES
from twotower.data.prepare.options import GROUPS
from twotower.wording import clip, duration

MAX_NAME = 28
LONG = 0.5  # seconds
SHARES = {
    "cold_item_targets": "cold targets",
    "cold_users": "cold users",
    "seen_targets": "targets seen before",
}


def show(figures: dict[str, Any], console: Console) -> None:
    """Print a card's figures."""
    console.print()
    console.print(_about(figures))
    beside = [[_kept(figures)], [_parts(figures)], [_spread(figures), _facts(figures)]]
    if figures["categories"]["num"]:
        beside.append([_categories(figures), _groups(figures)])
    for tables in [*beside, [_features(figures)]]:
        console.print()
        console.print(Columns(tables, padding=(0, 4, 0, 0)))  # beside one another where they fit
    console.print()
    for finding in figures["findings"]:
        line = Table.grid(padding=(0, 1))
        line.add_row(Text("!", style="bold yellow"), Text(finding))
        console.print(line)


def _about(figures: dict[str, Any]) -> Table:
    options = figures["options"]
    rows = [("data", figures["data"])]
    if figures["note"]:
        rows.append(("note", figures["note"]))
    split = dict(options["split"])
    option = re.sub(r"(?<!^)(?=[A-Z])", "_", split.pop("name")).lower()
    rows += [
        ("split", ", ".join([option, *_settings(split)])),
        ("filters", ", ".join(_settings(options["filters"]))),
        ("mask_seen", str(options["mask_seen"]).lower()),
        ("prepared", _effort(figures["preparation"])),
        ("fingerprint", figures["fingerprint"]),
    ]
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(name, Text(text))
    return table


def _settings(settings: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items() if value is not None]


def _effort(preparation: dict[str, Any]) -> str:
    stages = sorted(preparation["stages"].items(), key=lambda stage: -stage[1])
    slow = [f"{name} {duration(seconds)}" for name, seconds in stages[:3] if seconds >= LONG]
    most = f" ({', '.join(slow)})" if slow else ""
    return f"in {duration(preparation['seconds'])}{most}"


def _kept(figures: dict[str, Any]) -> Table:
    raw, kept, without = figures["raw"], figures["kept"], figures["without_interactions"]
    total = max(1, raw["interactions"])
    rows: list[list[Any]] = []
    if any(without.values()):
        rows.append(["in tables, no interaction", "", "", without["users"], without["items"]])
    rows.append(["raw", raw["interactions"], "", raw["users"], raw["items"]])
    for reason, num in figures["dropped"].items():
        rows.append([f"- {reason}", num, percent(num / total), "", ""])
    share = percent(kept["interactions"] / total)
    rows.append(["kept", kept["interactions"], share, kept["users"], kept["items"]])
    return _table("what is kept", ["", "interactions", "", "users", "items"], rows)


def _parts(figures: dict[str, Any]) -> Table:
    parts, history = figures["parts"], figures["history"]
    rows = [
        [key, *(part[key] for part in parts.values())] for key in ("interactions", "users", "items")
    ]
    has_clock = "first" in parts["train"]
    if has_clock:
        rows += [
            [key, *(part.get(key, "") for part in parts.values())] for key in ("first", "last")
        ]
    for key, label in SHARES.items():
        val, test = parts["val"][key], parts["test"][key]
        if val or test:
            rows.append([label, "", percent(val), percent(test)])
    if history["length"]:
        shares = (percent(history["short"][name]) for name in parts)
        rows.append([f"histories below {history['length']}", *shares])
    caption = f"density {percent(figures['kept']['density'])}"
    return _table("parts", ["", *parts], rows, caption)


def _spread(figures: dict[str, Any]) -> Table:
    user, item = figures["per_user"], figures["per_item"]
    rows = [[name, f"{user[name]:,.0f}", f"{item[name]:,.0f}"] for name in QUANTILES]
    rows.append(["mean", f"{user['mean']:,.1f}", f"{item['mean']:,.1f}"])
    return _table("training interactions", ["", "per user", "per item"], rows)


def _facts(figures: dict[str, Any]) -> Table:
    item, repeats, drift = (figures[name] for name in ("per_item", "repeats", "drift"))
    rows = [
        ["items' Gini coefficient", f"{item['gini']:.2f}"],
        ["the top 1% of items hold", percent(item["top_1%"])],
        ["the top 10% of items hold", percent(item["top_10%"])],
    ]
    if drift["top"]:
        rows.append([f"top {drift['top']} items that stay so in test", percent(drift["overlap"])])
    if repeats["of"] == "kept":  # else they are among the dropped
        rows.append(["repeated consumption", percent(repeats["share"])])
    rows += [[f"interactions: {name}", num] for name, num in figures["behaviours"].items()]
    if weights := figures["weights"]:
        spread = " / ".join(f"{weights[name]:.2g}" for name in ("min", "50%", "max"))
        rows.append(["weights in the loss: least / median / most, mean 1", spread])
    return _table("good to know", ["", ""], rows)


def _categories(figures: dict[str, Any]) -> Table:
    category = figures["categories"]
    rows = [
        [clip(row["name"], MAX_NAME), row["items"], percent(row["share"])]
        for row in category["top"][:5]
    ]
    caption = f"as even as {category['effective_num']:.1f} equal ones"
    columns = ["largest", "items", "interactions"]
    return _table(f"{category['num']:,} categories", columns, rows, caption)


def _groups(figures: dict[str, Any]) -> Table:
    groups, targets = figures["categories"]["groups"], figures["parts"]["test"]["groups"]
    rows = []
    for name in GROUPS:
        num, items, share = (groups[name][key] for key in ("categories", "items", "share"))
        rows.append([name, num, items, percent(share), percent(targets[name])])
    without = figures["categories"]["items_without"]
    caption = f"{percent(without)} of items have no category" if without else None
    return _table("groups", ["", "categories", "items", "training", "test"], rows, caption)


def _features(figures: dict[str, Any]) -> Table:
    rows = []
    for side, features in figures["features"].items():
        for feature in features:
            values = f"{feature['values']:,}" if feature["values"] else ""
            if "width" in feature:
                values += f" (up to {feature['width']} each)"
            kind = feature["kind"]
            if kind == "history":
                kind = f"last {figures['history']['length']} items"
            missing = "" if "missing" not in feature else percent(feature["missing"])
            rows.append([f"{side}: {feature['name']}", kind, values, missing])
    return _table("features", ["", "kind", "values", "missing"], rows)


def _table(
    title: str, columns: list[str], rows: Iterable[Iterable[str | int]], caption: str | None = None
) -> Table:
    """A table whose first column is text and whose other columns are aligned to the right."""
    table = Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        pad_edge=False,
        show_header=any(columns),
        show_edge=False,
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=place > 0)
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row))
    return table
