"""The data card on the screen."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from twotower.data.card.findings import percent
from twotower.data.card.spread import QUANTILES
from twotower.data.prepare.prepare import GROUPS
from twotower.wording import clip, duration

GAP = 4
UNTOLD = (
    "url",
    "sha256",
    "md5",
    "checksum",
    "wishes",
    "text_format",
    "rules",
)  # of readers: in card.json alone


def show(figures: dict[str, Any], console: Console) -> None:
    """Print a card's figures."""
    console.print()
    console.print(_about(figures))
    tables = [_kept(figures), _parts(figures), _spread(figures), _facts(figures)]
    if figures["categories"]["num"]:
        tables += [_categories(figures), _groups(figures)]
    _flow(console, [*tables, _features(figures)])
    console.print()
    for finding in figures["findings"]:
        console.print(_bullet(finding))


def _flow(console: Console, tables: list[Table]) -> None:
    """Side by side while the screen is wide enough."""
    rows: list[list[Table]] = [[]]
    left = console.width
    for table in tables:
        width = console.measure(table).maximum + GAP
        if rows[-1] and width > left:
            rows.append([])
            left = console.width
        rows[-1].append(table)
        left -= width
    for row in rows:
        line = Table.grid(padding=(0, GAP, 0, 0))
        line.add_row(*row)
        console.print()
        console.print(line)


def _about(figures: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    options, preparation = figures["options"], figures["preparation"]
    table.add_row("data", Text(figures["data"], style="bold"))
    if figures["note"]:
        table.add_row("note", Text(figures["note"], style="yellow"))
    for remark in figures["remarks"]:
        if (
            "\n" not in remark
        ):  # a reader's own table has been on the screen already, and is in card.json
            table.add_row("remark", Text(remark))
    split = options["split"]
    table.add_row("split", Text(f"{split['name']} {_settings(split, 'name')}"))
    table.add_row("filters", Text(_settings(options["filters"])))
    table.add_row("mask_seen", Text(str(options["mask_seen"]).lower()))
    table.add_row("reader", Text(_settings(options["reader"], *UNTOLD)))
    table.add_row("prepared", Text(_effort(preparation)))
    table.add_row("fingerprint", Text(figures["fingerprint"]))
    return table


def _effort(preparation: dict[str, Any]) -> str:
    text = f"in {duration(preparation['seconds'])}"
    if preparation["peak_memory_bytes"]:
        text += f" with {preparation['peak_memory_bytes'] / 2**30:.1f} GiB at most"
    if preparation["stages"]:
        slowest = sorted(preparation["stages"].items(), key=lambda stage: -stage[1])[:3]
        text += f" ({', '.join(f'{name} {duration(seconds)}' for name, seconds in slowest)})"
    return text


def _kept(figures: dict[str, Any]) -> Table:
    table = _table("what is kept", "", "interactions", "", "users", "items")
    raw, kept, without = figures["raw"], figures["kept"], figures["without_interactions"]
    if any(without.values()):
        table.add_row(
            "in tables, no interaction",
            "",
            "",
            *(f"{without[side]:,}" for side in ("users", "items")),
        )
    table.add_row("raw", f"{raw['interactions']:,}", "", f"{raw['users']:,}", f"{raw['items']:,}")
    for reason, num in figures["dropped"].items():
        table.add_row(
            Text(f"- {reason}"), f"{num:,}", percent(num / max(1, raw["interactions"])), "", ""
        )
    share = percent(kept["interactions"] / max(1, raw["interactions"]))
    table.add_row(
        "kept",
        f"{kept['interactions']:,}",
        share,
        f"{kept['users']:,}",
        f"{kept['items']:,}",
        style="bold",
    )
    return table


def _parts(figures: dict[str, Any]) -> Table:
    parts = figures["parts"]
    table = _table("parts", "", *parts)
    for key in ("interactions", "users", "items"):
        table.add_row(key, *(f"{part[key]:,}" for part in parts.values()))
    for key in ("first", "last"):
        if key in parts["train"]:
            table.add_row(key, *(part.get(key, "") for part in parts.values()))
    shares = {
        "cold_item_targets": "cold targets",
        "cold_users": "cold users",
        "seen_targets": "targets seen before",
    }
    for key, label in shares.items():
        table.add_row(
            label, *(percent(part[key]) if key in part else "" for part in parts.values())
        )
    if figures["history"]["length"]:
        short = figures["history"]["short"]
        table.add_row(
            f"histories below {figures['history']['length']}",
            *(percent(short[name]) for name in parts),
        )
    clock = "" if "first" in parts["train"] else ", order only, no clock"
    table.caption = f"density {percent(figures['kept']['density'])}{clock}"
    return table


def _spread(figures: dict[str, Any]) -> Table:
    table = _table("training interactions", "", "per user", "per item")
    for name in (*QUANTILES, "mean"):
        digits = 1 if name == "mean" else 0
        table.add_row(
            name, *(f"{figures[side][name]:,.{digits}f}" for side in ("per_user", "per_item"))
        )
    return table


def _facts(figures: dict[str, Any]) -> Table:
    item, repeats, drift = (figures[name] for name in ("per_item", "repeats", "drift"))
    table = _table("good to know", "", "")
    table.add_row("items' Gini coefficient", f"{item['gini']:.2f}")
    table.add_row("the top 1% of items hold", percent(item["top_1%"]))
    table.add_row("the top 10% of items hold", percent(item["top_10%"]))
    if drift["top"]:
        table.add_row(f"top {drift['top']} items that stay so in test", percent(drift["overlap"]))
    table.add_row(f"repeated consumption ({repeats['of']})", percent(repeats["share"]))
    for name, num in figures["behaviours"].items():
        table.add_row(Text(f"interactions: {name}"), f"{num:,}")
    return table


def _categories(figures: dict[str, Any]) -> Table:
    category = figures["categories"]
    table = _table(f"{category['num']:,} categories", "largest", "items", "interactions")
    for row in category["top"][:5]:
        table.add_row(Text(clip(row["name"], 28)), f"{row['items']:,}", percent(row["share"]))
    table.caption = f"as even as {category['effective_num']:.1f} equal ones"
    return table


def _groups(figures: dict[str, Any]) -> Table:
    category, targets = figures["categories"], figures["parts"]["test"]["groups"]
    table = _table("groups", "", "categories", "items", "training", "test")
    for name in GROUPS:
        row = category["groups"][name]
        table.add_row(
            name,
            f"{row['categories']:,}",
            f"{row['items']:,}",
            percent(row["share"]),
            percent(targets[name]),
        )
    table.caption = f"{percent(category['items_without'])} of items have no category"
    return table


def _features(figures: dict[str, Any]) -> Table:
    table = _table("features", "", "kind", "values", "missing")
    for side, features in figures["features"].items():
        for feature in features:
            values = f"{feature['values']:,}" if feature["values"] else ""
            if "width" in feature:
                values += f" (up to {feature['width']} each)"
            missing = "" if "missing" not in feature else percent(feature["missing"])
            table.add_row(Text(f"{side}: {feature['name']}"), feature["kind"], values, missing)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
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
    return table


def _bullet(text: str) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_row(Text("!", style="bold yellow"), Text(text))
    return table


def _settings(node: Mapping[str, Any], *hidden: str) -> str:
    return ", ".join(
        f"{name}={_value(value)}" for name, value in node.items() if name not in hidden
    )


def _set(node: Mapping[str, Any]) -> dict[str, Any]:
    """A table's settings that are set: most of the many have no value, and nodes of such are empty."""
    values = {
        name: _set(value) if isinstance(value, Mapping) else value for name, value in node.items()
    }
    return {name: value for name, value in values.items() if value is not None and value != {}}


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{_settings(_set(value))}}}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)
