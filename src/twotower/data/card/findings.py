"""Warnings of the data card: what a researcher must know before trusting results on the data."""

import math
from collections.abc import Iterator
from typing import Any

COLD = 0.05
FEW_TARGETS = 1_000
SEEN = 0.01
REPEATS = {
    True: "data.mask_seen=true hides them, so they are misses for every model: set it to false to "
    "measure what users come back to",
    False: "with data.mask_seen=false a model that repeats histories finds them",
    "except_targets": "data.mask_seen=except_targets hides everything else that the user had, so "
    "they are found more easily than in a list that is served",
}
MIN_TOP_TARGETS = 10  # with fewer targets, the most popular items of test are chance


def findings(figures: dict[str, Any]) -> list[str]:
    """Warnings for the figures of a card, the gravest first."""
    checks = (_cold, _categories, _protocol, _size, _features)
    return [text for check in checks for text in check(figures)]


def percent(share: float) -> str:
    """Format a share with two significant digits."""
    if share in (0, 1) or 0.0995 <= share < 0.995:
        return f"{share:.0%}"
    if share >= 0.9995:
        return ">99.9%"
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"


def _cold(figures: dict[str, Any]) -> Iterator[str]:
    test = figures["parts"]["test"]
    if test["cold_item_targets"] >= COLD:
        yield (
            f"{percent(test['cold_item_targets'])} of test targets are cold: their item is not in "
            "training, so models without item features cannot find it; read the metrics under "
            "`cold` apart"
        )
    if test["cold_users"] >= COLD:
        yield (
            f"{percent(test['cold_users'])} of test users are cold: they are not in training, so "
            "models know only their features and history; read the metrics under `cold_user` apart"
        )


def _categories(figures: dict[str, Any]) -> Iterator[str]:
    category = figures["categories"]
    if category["num"] == 0:
        yield (
            "no item has a category: set loss.lambda3=0, or name the column of categories "
            "(data=table)"
        )
        return
    if category["num"] == 1:
        yield "there is one category: lambda3 has nothing to align it with, set loss.lambda3=0"
    elif category["largest_share"] >= 0.5:
        yield (
            f"one category, {category['top'][0]['name']}, holds "
            f"{percent(category['largest_share'])} of training interactions: alignment compares "
            "all others with it, and an overall metric is mostly its metric"
        )
    if category["items_without"] >= 0.1:
        yield (
            f"{percent(category['items_without'])} of items have no category: alignment leaves "
            "them out, and the metrics under head, middle and tail do not count them"
        )


def _protocol(figures: dict[str, Any]) -> Iterator[str]:
    if figures["time_unit"] == "order":
        yield "the data know each user's order but no times: data/split=temporal is impossible"
    if figures["options"]["split"]["name"] == "RandomRatio" and figures["history"]["length"]:
        yield (
            "the split is random, so histories also hold later interactions: set "
            "data.history_length=0, or take another split"
        )
    repeats = figures["repeats"]
    if repeats["share"] >= 0.1 and repeats["of"] == "raw":
        yield (
            f"{percent(repeats['share'])} of raw interactions repeat an item that the user had "
            "before; they are dropped, so no metric measures what users come back to"
        )
    seen = figures["parts"]["test"]["seen_targets"]
    if seen >= SEEN:
        consequence = REPEATS[figures["options"]["mask_seen"]]
        yield f"{percent(seen)} of test targets are items that the user had before; {consequence}"
    overlap, top = figures["drift"]["overlap"], figures["drift"]["top"]
    if overlap is not None and overlap < 0.3 and figures["drift"]["least"] >= MIN_TOP_TARGETS:
        yield (
            f"only {percent(overlap)} of the {top} most popular items of training are also the "
            "most popular in test: popularity learned in training misleads"
        )


def _size(figures: dict[str, Any]) -> Iterator[str]:
    kept, raw = figures["kept"]["interactions"], figures["raw"]["interactions"]
    if kept < raw / 2:
        reason, num = max(figures["dropped"].items(), key=lambda drop: drop[1])
        yield (
            f"{percent(kept / raw)} of raw interactions are kept; "
            f"{percent(num / raw)} were dropped as: {reason}"
        )
    users = figures["parts"]["test"]["users"]
    if users <= FEW_TARGETS:
        error = math.sqrt(0.1 * 0.9 / users)
        yield (
            f"{users:,} test users: chance alone changes a hit rate of .10 by {error:.3f} (one "
            "standard error), so small differences between models mean little"
        )
    median = figures["per_user"]["50%"]
    if median <= 2:
        yield f"half of the users have at most {median:.0f} training interactions"
    none = figures["history"]["none"]["test"]
    if figures["history"]["length"] and none >= COLD:
        yield f"{percent(none)} of test users have no history at all"


def _features(figures: dict[str, Any]) -> Iterator[str]:
    for side, features in figures["features"].items():
        for feature in features:
            missing, name = feature.get("missing", 0), feature["name"]
            if missing >= 0.8:
                how = "missing, or the mean," if feature["kind"] == "numeric" else "missing"
                rows = f"{percent(missing)} of training {side}s"
                yield f"the {side} feature {name} is {how} for {rows}"
