"""The settings that a search varies and their distributions, from ``conf/search/``."""

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from twotower.errors import UserError
from twotower.run.checks.checks import suggest
from twotower.run.settings import Value

KEYS = ("low", "high", "log", "whole", "points", "choices")
POINTS = 3  # of an interval in a grid
INSIDE = 0.3719  # where a value is tried: rarely a whole number
DIGITS = 4  # of a value that is drawn
MOST_POINTS = 100_000  # of a grid


class Distribution(NamedTuple):
    """An interval, or choices.

    Attributes:
        low: end of the interval.
        high: end of the interval, itself included.
        log: equal shares for equal ratios.
        whole: whole numbers alone.
        points: values of the interval in a grid.
        choices: instead of an interval.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    points: int = POINTS
    choices: tuple[Value, ...] = ()

    def grid(self) -> list[Value]:
        """Its values for ``sampler=grid``."""
        if self.choices:
            return list(self.choices)
        shares = [place / max(self.points - 1, 1) for place in range(self.points)]
        if self.log:
            ratio = self.high / self.low
            values = [self.low * ratio**share for share in shares]
        else:
            values = [self.low + (self.high - self.low) * share for share in shares]
        return list(dict.fromkeys(self.rounded(value) for value in values))

    def examples(self) -> list[Value]:
        """Every choice, or both ends of the interval and a value between them."""
        if self.choices:
            return list(self.choices)
        inside = self.low + (self.high - self.low) * INSIDE
        return [self.rounded(value) for value in (self.low, self.high, inside)]

    def rounded(self, value: Any) -> Any:
        """A drawn value as it stands on a command line."""
        if self.choices:
            return value
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def plain(self) -> dict[str, Any]:
        """As it is written in YAML, without what is not set."""
        if self.choices:
            return {"choices": list(self.choices)}
        found: dict[str, Any] = {"low": self.low, "high": self.high}
        found |= {name: True for name in ("log", "whole") if getattr(self, name)}
        return found if self.points == POINTS else {**found, "points": self.points}

    def text(self) -> str:
        """On one line, for a table."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        kind = ", log" * self.log + ", whole" * self.whole
        return f"{self.low:g} to {self.high:g}{kind}"


Space = dict[str, Distribution]  # by the setting's dotted name


def read_space(node: Mapping[str, Any], path: str = "search") -> dict[str, Distribution | None]:
    """The distributions in a node; None for a setting that is not searched.

    Args:
        node: plain, nested as the config is.
        path: of the node, for messages.

    Raises:
        UserError: for what is no distribution.
    """
    found: dict[str, Distribution | None] = {}
    for key, value in node.items():
        name = f"{path}.{key}"
        setting = name.split(".", 1)[1]
        if value is None:
            found[setting] = None
        elif isinstance(value, list):
            found[setting] = _distribution({"choices": value}, name)
        elif not isinstance(value, dict):
            raise UserError(f"{name} must have low and high, or choices, got {value!r}")
        elif {"low", "high", "choices"} & value.keys() or not any(map(_is_node, value.values())):
            found[setting] = _distribution(value, name)
        else:
            found |= read_space(value, name)
    return found


def _is_node(value: Any) -> bool:
    return value is None or isinstance(value, (dict, list))


def _distribution(node: dict[str, Any], name: str) -> Distribution:
    for key in node:
        if key not in KEYS:
            raise UserError(f"unknown key {name}.{key}{suggest(str(key), KEYS)}")
    if "choices" in node:
        return Distribution(choices=_choices(node, name))
    for key in ("low", "high"):
        value = node.get(key)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
            raise UserError(f"{name}.{key} must be a finite number, got {value!r}")
    for key in ("log", "whole"):
        if not isinstance(node.get(key, False), bool):
            raise UserError(f"{name}.{key} must be true or false, got {node[key]!r}")
    points = node.get("points", POINTS)
    if not isinstance(points, int) or isinstance(points, bool) or points < 1:
        raise UserError(f"{name}.points must be a whole number of 1 or more, got {points!r}")
    made = Distribution(
        node["low"], node["high"], node.get("log", False), node.get("whole", False), points
    )
    if not made.low < made.high:
        raise UserError(f"{name} must have a low below its high, got {made.low} and {made.high}")
    if made.log and made.low <= 0:
        raise UserError(f"{name} with log: true must have a low above 0, got {made.low}")
    if made.whole and (made.low != int(made.low) or made.high != int(made.high)):
        raise UserError(f"{name} with whole: true must have whole ends")
    return made


def _choices(node: dict[str, Any], name: str) -> tuple[Value, ...]:
    values = node["choices"]
    is_flat = isinstance(values, list) and not any(isinstance(v, (dict, list)) for v in values)
    if not is_flat or not values:
        raise UserError(f"{name}.choices must be a list of values, got {values!r}")
    if len(node) > 1:
        other = next(key for key in node if key != "choices")
        raise UserError(f"{name} has choices and {other}: leave out one of them")
    return tuple(values)


def refuse_differences(spaces: Mapping[str, Space]) -> None:
    """Refuse a setting with two distributions: one variant would be tuned better than another.

    Raises:
        UserError: naming the setting and two variants.
    """
    seen: dict[str, tuple[str, Distribution]] = {}
    for label, space in spaces.items():
        for key, distribution in space.items():
            other, known = seen.setdefault(key, (label, distribution))
            if known != distribution:
                raise UserError(
                    f"{key} is searched in {known.text()} for {other} and in "
                    f"{distribution.text()} for {label}: give both the same distribution"
                )


def grid_of(space: Space, budget: int, label: str) -> list[dict[str, Value]]:
    """All combinations of a space's values.

    Raises:
        UserError: if they are fewer than the trials, which all variants have the same number of.
    """
    values = [distribution.grid() for distribution in space.values()]
    size = math.prod(map(len, values))
    if size > MOST_POINTS:
        raise UserError(f"sampler=grid: the grid of {label} has {size:,} points: give choices")
    if size < budget:
        raise UserError(
            f"sampler=grid: the grid of {label} has {size} points, fewer than budget={budget}: "
            f"set budget={size} or give its settings more points"
        )
    return [dict(zip(space, point, strict=True)) for point in product(*values)]
