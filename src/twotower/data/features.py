"""Features of users and items, looked up in the prepared tables."""

from torch import Tensor

from twotower.data.batches import rows
from twotower.types import Schema

Tables = dict[str, Tensor]


def user_features(
    tables: Tables, schema: Schema, history_length: int, position: Tensor, user: Tensor
) -> dict[str, Tensor]:
    """Features of users ``(batch,)`` just before ``position``, each ``(batch, ...)``."""
    features = {}
    for feature in schema.user:
        if feature.kind == "history":
            values = rows.history(tables, position, user, history_length, schema.num_train_items)
        else:
            values = rows.take(tables[f"user/{feature.name}"], user)
        features[feature.name] = values
    return features


def item_features(tables: Tables, schema: Schema, item: Tensor) -> dict[str, Tensor]:
    """Features of corpus indices ``(batch,)``, each ``(batch, ...)``."""
    return {feature.name: tables[f"item/{feature.name}"][item] for feature in schema.item}


def with_truth(
    tables: Tables, features: dict[str, Tensor], side: str, index: Tensor
) -> dict[str, Tensor]:
    """Add the planted truth of synthetic data, for the oracle."""
    truth = tables.get(f"latent/{side}")
    return features if truth is None else {**features, "latent": rows.take(truth, index)}
