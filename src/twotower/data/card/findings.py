"""What a researcher must know before trusting results on these data, in plain words; few, and each with a consequence."""

import math
from collections.abc import Iterator
from typing import Any

COLD = 0.05
FEW_TARGETS = 1_000
SEEN = 0.01
REPEATS = {
    True: "data.mask_seen=true hides them, so they are misses for every model: to measure what users come back to, set false",
    False: "with data.mask_seen=false a model that repeats histories finds them",
    "except_targets": "data.mask_seen=except_targets hides what else the user had, so they are found more easily than by any "
    "list that is served",
}
MIN_TOP_TARGETS = 10  # with fewer, who is among the top is chance


def findings(figures: dict[str, Any]) -> list[str]:
    """Warnings for the figures of a card, the gravest first."""
    return [
        *_cold(figures),
        *_categories(figures),
        *_protocol(figures),
        *_size(figures),
        *_features(figures),
    ]


def percent(share: float) -> str:
    """A share for people: two digits that mean something."""
    if share in (0, 1) or 0.0995 <= share < 0.995:
        return f"{share:.0%}"
    if share >= 0.9995:
        return ">99.9%"
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"


def _cold(figures: dict[str, Any]) -> Iterator[str]:
    test = figures["parts"]["test"]
    if test["cold_item_targets"] >= COLD:
        yield (
            f"{percent(test['cold_item_targets'])} of test targets are cold: training never saw their item, so its id tells "
            "nothing and models without item features cannot find it; read the metrics under `cold` apart"
        )
    if test["cold_users"] >= COLD:
        yield (
            f"{percent(test['cold_users'])} of test users are cold: training never saw them, so only their features and history "
            "speak for them; read the metrics under `cold_user` apart"
        )


def _categories(figures: dict[str, Any]) -> Iterator[str]:
    category = figures["categories"]
    if category["num"] == 0:
        yield "no item has a category: lambda3 has nothing to align, set loss.lambda3=0"
        return
    if category["num"] == 1:
        yield "there is one category: lambda3 has nothing to align it with, set loss.lambda3=0"
    elif category["largest_share"] >= 0.5:
        yield (
            f"one category, {category['top'][0]['name']}, holds {percent(category['largest_share'])} of training interactions: "
            "alignment compares all others with it, and an overall metric is mostly its metric"
        )
    if category["items_without"] >= 0.1:
        yield (
            f"{percent(category['items_without'])} of items have no category: alignment leaves them out, and they count in "
            "none of the metrics under head, middle and tail"
        )


def _protocol(figures: dict[str, Any]) -> Iterator[str]:
    if figures["time_unit"] == "order":
        yield "only each user's order is known, no clock: data/split=temporal is impossible"
    if figures["options"]["split"]["name"] == "RandomRatio" and figures["history"]["length"]:
        yield "the split is drawn at random, so histories hold what came later too: set data.history_length=0, or take another"
    repeats = figures["repeats"]
    if repeats["share"] >= 0.1 and repeats["of"] == "raw":
        yield (
            f"{percent(repeats['share'])} of raw interactions repeat an item that the user had before; they are dropped, so "
            "nothing here measures what users come back to"
        )
    seen = figures["parts"]["test"]["seen_targets"]
    if seen >= SEEN:
        mask_seen = figures["options"]["mask_seen"]
        yield f"{percent(seen)} of test targets are items that the user had before; {REPEATS[mask_seen]}"
    drift = figures["drift"]
    if (
        drift["overlap"] is not None
        and drift["overlap"] < 0.3
        and drift["least"] >= MIN_TOP_TARGETS
    ):
        yield (
            f"only {percent(drift['overlap'])} of the {drift['top']} most popular items of training are still so in test: "
            "popularity learned in training misleads"
        )


def _size(figures: dict[str, Any]) -> Iterator[str]:
    kept, raw = figures["kept"]["interactions"], figures["raw"]["interactions"]
    if kept < raw / 2:
        reason, num = max(figures["dropped"].items(), key=lambda drop: drop[1])
        yield f"{percent(kept / raw)} of raw interactions are kept; {percent(num / raw)} went as: {reason}"
    users = figures["parts"]["test"]["users"]
    if users <= FEW_TARGETS:
        error = math.sqrt(0.1 * 0.9 / users)
        yield (
            f"{users:,} test users: chance alone moves a hit rate of .10 by {error:.3f} (one standard error), so small "
            "differences between models mean little"
        )
    if figures["per_user"]["50%"] <= 2:
        yield f"half of the users have at most {figures['per_user']['50%']:.0f} training interactions: little to learn from"
    short = figures["history"]["none"]["test"]
    if figures["history"]["length"] and short >= COLD:
        yield f"{percent(short)} of test users have no history at all"


def _features(figures: dict[str, Any]) -> Iterator[str]:
    for side, features in figures["features"].items():
        for feature in features:
            if feature.get("missing", 0) >= 0.8:
                how = "missing, or the mean," if feature["kind"] == "numeric" else "missing"
                yield f"the {side} feature {feature['name']} is {how} for {percent(feature['missing'])} of training {side}s"
