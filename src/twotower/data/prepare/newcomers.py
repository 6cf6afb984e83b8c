"""Users and items that are not in training: their evaluation, and features from raw values."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from twotower.data.prepare.features import bucket_of
from twotower.data.prepare.hashing import hashed_column
from twotower.errors import UserError
from twotower.types import Feature


def new_users(
    tables: dict[str, Tensor],
    position: Tensor,
    num_targets: Tensor,
    num_train_users: int,
    clicks: int,
) -> tuple[Tensor, Tensor]:
    """Choose the evaluated users outside of training, each after ``clicks`` interactions.

    Args:
        tables: of the data module.
        position: ``(num_users,)`` first target of each.
        num_targets: ``(num_users,)`` number of targets from there on.
        num_train_users: users from this number on are new.
        clicks: known interactions of each; the rest of the part are the targets.

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
            f"clicks={clicks}: this part has no user outside of training with more clicks than "
            "that; data/split=temporal data.split.min_history=0 gives such users"
        )
    return start[taken], (end - start)[taken]


def from_values(
    side: str,
    features: tuple[Feature, ...],
    values: Mapping[str, Any],
    encodings: Mapping[str, pl.DataFrame],
) -> dict[str, Tensor]:
    """Features of one user or item that the data do not have, each ``(1, ...)``.

    Its id is unknown and a history is not set. Values that are not given or not in training are
    unknown: index 0, and for numbers the mean. Hashed values need not be in training.

    Args:
        side: ``user`` or ``item``.
        features: of the side.
        values: by name, as the raw data have them; lists for features of several values.
        encodings: see :func:`~twotower.data.prepare.features.encode`.

    Raises:
        UserError: for an unknown feature, text in the place of a number, and vectors of another
            width.
    """
    own = {feature.name: feature for feature in features if feature.kind != "event"}
    del own[f"{side}_id"]
    own.pop("history", None)
    for name in values:
        if name not in own:
            known = ", ".join(own) or "none"
            raise UserError(f"features: {name} is none of this data set's; there are {known}")
    given = {}
    for name, feature in own.items():
        given[name] = _encoded(feature, values.get(name), encodings[f"{side}/{name}"])
    return {f"{side}_id": torch.zeros(1, dtype=torch.int32), **given}


def _encoded(feature: Feature, value: Any, encoding: pl.DataFrame) -> Tensor:
    """``(1,)``, or ``(1, width)`` for a feature of several values or numbers."""
    if feature.kind == "numeric":
        return torch.tensor([scaled(feature.name, value, encoding)], dtype=torch.float32)
    if feature.kind == "vector":
        return _scaled_vector(feature, value, encoding)
    if "buckets" in encoding.columns:
        return torch.from_numpy(hashed_column(_as_lists(value), encoding))
    if "edge" in encoding.columns:
        number = np.array([np.nan if value is None else _number(feature.name, value)])
        return torch.from_numpy(bucket_of(number, encoding))
    is_list = feature.kind == "multi" and not isinstance(value, str)
    given = list(value or []) if is_list else [value]
    index = [_index(one, encoding["value"]) for one in given if one is not None] or [0]
    return torch.tensor([index] if feature.kind == "multi" else index, dtype=torch.int32)


def _as_lists(value: Any) -> pl.Series:
    """One row with the given value or values as text."""
    given = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return pl.Series([[text for one in given if (text := _text(one))]], dtype=pl.List(pl.String))


def _text(value: Any) -> str:
    """A label as preparation writes it: 17.0 is ``17``; missing, blanks and NaN are empty."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value != value:
        return ""
    text: str = pl.Series([value]).cast(pl.String)[0]
    return text.strip()


def _index(value: Any, vocabulary: pl.Series) -> int:
    """1-based place of a value, 0 for an unknown one; compared as text: ``1995`` is ``"1995"``."""
    text = pl.Series([value]).cast(pl.String)[0]
    place = (vocabulary.cast(pl.String) == text).arg_true()
    return int(place[0]) + 1 if len(place) else 0


def scaled(name: str, value: Any, encoding: pl.DataFrame) -> float:
    """A number as training saw it, 0 for None.

    Args:
        name: of the feature.
        value: raw.
        encoding: its ``mean`` and ``std``.

    Raises:
        UserError: if it is not a number.
    """
    if value is None:
        return 0.0
    return float((_number(name, value) - encoding["mean"][0]) / encoding["std"][0])


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):  # numpy's numbers are Real too
        raise UserError(
            f"features.{name} must be a number (of a date, the days since 1970), got {value!r}"
        )
    return float(value)


def _scaled_vector(feature: Feature, value: Any, encoding: pl.DataFrame) -> Tensor:
    """``(1, width)`` as training saw it, zeros for None."""
    mean, std = (encoding[name].to_torch() for name in ("mean", "std"))
    try:
        given = mean if value is None else torch.as_tensor(value, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError):
        given = torch.empty(0)
    if given.shape != mean.shape or not given.isfinite().all():
        raise UserError(f"features.{feature.name} must be {feature.num_values} numbers")
    return ((given - mean) / std).float()[None]
