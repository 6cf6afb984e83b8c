"""Users and items that training never saw: whom evaluation takes, and features from values that people write."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import Tensor

from twotower.types import Feature, UserError


def new_users(
    tables: dict[str, Tensor], position: Tensor, num_targets: Tensor, num_train_users: int, clicks: int
) -> tuple[Tensor, Tensor]:
    """Of the evaluated users those whom training never saw, moved on to where each has ``clicks`` interactions behind.

    Args:
        tables: of the data module.
        position: ``(num_users,)`` first target of each.
        num_targets: ``(num_users,)`` how many lie one after another from there.
        num_train_users: users from this number on are new.
        clicks: interactions that are known of each; the rest of the part are the targets.

    Returns:
        Position and number of the targets that are left, of the users that have any.

    Raises:
        UserError: if there is no such user.
    """
    user = tables["interactions/user"][position].long()  # (num_users,)
    start, end = tables["offset"][user].long() + clicks, position + num_targets
    taken = (user >= num_train_users) & (start >= position) & (start < end)
    if not taken.any():
        raise UserError(
            f"clicks={clicks}: this part has no user whom training never saw and who has more clicks than that; "
            "such users are there with data/split=temporal data.split.min_history=0"
        )
    return start[taken], (end - start)[taken]


def from_values(
    features: tuple[Feature, ...],
    values: Mapping[str, Any],
    vocabulary: pl.DataFrame | None,
    scales: Mapping[str, list[float]],
) -> dict[str, Tensor]:
    """Features of one user or item that the data do not have, each ``(1, ...)``.

    What is not given, and a value that training never saw, is unknown: index 0, and for numbers the mean. There is no id.

    Args:
        features: of the side; its id and history are not set here.
        values: by name, as the raw data have them; lists for features of several values.
        vocabulary: ``feature``, ``value`` and ``index``, see :class:`~twotower.data.features.Encoded`.
        scales: mean and deviation of each number.

    Raises:
        UserError: for a feature that there is not, a number that is none, and data that were prepared without vocabulary.
    """
    own = {feature.name: feature for feature in features if feature.name not in ("user_id", "item_id", "history")}
    if unknown := [name for name in values if name not in own]:
        raise UserError(f"features={unknown[0]}: there is no such feature; choose from {', '.join(own) or 'none: there are none'}")
    if values and vocabulary is None:
        raise UserError(
            "these data were prepared by an earlier version, which did not keep the values of features: delete their folder in "
            "paths.cache_dir, or run python src/prepare.py with the run's data settings and force=true"
        )
    encoded = {name: _encoded(feature, values.get(name), vocabulary, scales) for name, feature in own.items()}
    ids = {feature.name: torch.zeros(1, dtype=torch.int32) for feature in features if feature.name in ("user_id", "item_id")}
    return ids | encoded


def _encoded(feature: Feature, value: Any, vocabulary: pl.DataFrame | None, scales: Mapping[str, list[float]]) -> Tensor:
    """``(1,)``, or ``(1, width)`` for features of several values."""
    if feature.kind == "numeric":
        return torch.tensor([_scaled(feature.name, value, scales)], dtype=torch.float32)
    several = feature.kind == "multi"
    given = [] if value is None else list(value) if several and not isinstance(value, str) else [value]
    index = [_index(feature.name, one, vocabulary) for one in given] or [0]
    return torch.tensor([index] if several else index, dtype=torch.int32)


def _index(name: str, value: Any, vocabulary: pl.DataFrame | None) -> int:
    assert vocabulary is not None
    text = pl.Series([value]).cast(pl.String)[0]
    found = vocabulary.filter(pl.col("feature") == name, pl.col("value") == text)["index"]
    return int(found[0]) if len(found) else 0


def _scaled(name: str, value: Any, scales: Mapping[str, list[float]]) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)):
        raise UserError(f"features.{name} must be a number, got {value!r}")
    mean, deviation = scales[name]
    return (value - mean) / deviation
