"""Conditions on item features, such as ``category=books`` or ``year>=1990``."""

import difflib
import operator
import re
from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare.newcomers import scaled
from twotower.errors import UserError

CONDITION = re.compile(r"\s*(.*?)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NUM_SHOWN = 5  # values in an error
Where = str | Sequence[str] | None


def matching_items(data: RetrievalDataModule, where: Where) -> Tensor:
    """``(num,)`` corpus indices, ascending, of the items that meet all conditions.

    Args:
        data: set up.
        where: ``feature=value`` (``value|value``: any of these), ``!=``, or for numbers ``<``,
            ``<=``, ``>``, ``>=``. ``category`` is the item's category. Values are compared as
            text. A numeric feature that is missing is the mean of training, as for the model.

    Raises:
        UserError: for an unknown feature or value, and if no item meets all conditions.
    """
    conditions = [where] if isinstance(where, str) else list(where or ())
    met = torch.ones(data.schema.num_items, dtype=torch.bool)
    for condition in conditions:
        met &= _meets(data, condition)
    rows = met.nonzero().squeeze(1)
    if not len(rows):
        raise UserError(f"where={' and '.join(conditions)}: no item is like this")
    return rows


def _meets(data: RetrievalDataModule, condition: str) -> Tensor:
    """``(num_items,)``."""
    found = CONDITION.fullmatch(condition)
    if not found:
        raise UserError(f"where={condition}: write feature=value, such as where='category=books'")
    name, sign, value = found.groups()
    index, vocabulary = _feature(data, condition, name)
    if vocabulary is None:  # standardised numbers
        encoding = data.encodings[f"item/{name}"]
        wanted = torch.tensor(scaled(name, _number(condition, value), encoding)).float()
        met: Tensor = {"=": operator.eq, "!=": operator.ne, **ORDERS}[sign](index, wanted)
        return met
    if sign in ORDERS:
        numbers = vocabulary.cast(pl.Float64, strict=False)
        if numbers.null_count() == len(numbers):
            raise UserError(f"where={condition}: {name} has no numbers: use = or !=")
        meets = ORDERS[sign](numbers, _number(condition, value)).fill_null(False)
    else:
        meets = vocabulary.is_in(_known(condition, value, vocabulary))
    table = torch.cat([torch.zeros(1, dtype=torch.bool), torch.from_numpy(meets.to_numpy().copy())])
    member = table[index.long()]  # (num_items,) or (num_items, width); 0 is unknown or padding
    member = member.any(1) if member.dim() == 2 else member
    return ~member if sign == "!=" else member


def _feature(
    data: RetrievalDataModule, condition: str, name: str
) -> tuple[Tensor, pl.Series | None]:
    """Values of all items: indices from 1 on of a vocabulary of texts, or numbers without one."""
    if name == "category" and data.meta["categories"]:
        return data.tables["category"] + 1, pl.Series(data.meta["categories"], dtype=pl.String)
    names = [feature.name for feature in data.schema.item if feature.name != "item_id"]
    if name not in names:
        known = dict.fromkeys(["category"] * bool(data.meta["categories"]) + names)
        raise UserError(
            f"where={condition}: items have no {name}; there are {', '.join(known) or 'none'}"
        )
    if next(own.kind for own in data.schema.item if own.name == name) == "vector":
        raise UserError(f"where={condition}: {name} holds vectors, which have no order or values")
    encoding = data.encodings[f"item/{name}"]
    if "edge" in encoding.columns:
        raise UserError(f"where={condition}: of {name} only the bucket is known")
    if "buckets" in encoding.columns:
        raise UserError(f"where={condition}: {name} is hashed, its values are not kept")
    vocabulary = encoding["value"].cast(pl.String) if "value" in encoding.columns else None
    return data.tables[f"item/{name}"], vocabulary


def _known(condition: str, value: str, vocabulary: pl.Series) -> list[str]:
    """The value, or those between ``|``, all of which items must have."""
    listed = vocabulary.to_list()
    values = [value] if value in listed else [part.strip() for part in value.split("|")]
    for part in values:
        if part not in listed:
            near = difflib.get_close_matches(part, listed, NUM_SHOWN) or listed[:NUM_SHOWN]
            raise UserError(
                f"where={condition}: no item has {part or 'an empty value'}; of {len(listed):,} "
                f"values the nearest are {', '.join(near)}"
            )
    return values


def _number(condition: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"where={condition}: {value or 'nothing'} is not a number") from None
