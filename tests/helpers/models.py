"""Small models, built from the configuration or by hand, and batches for them."""

import torch

from tests.conftest import ROOT
from tests.helpers.composition import compose_derived
from twotower.layers.history import Mean
from twotower.models.dat import DAT
from twotower.run.build import build_part
from twotower.types import Batch

TOWER = {
    "embedding_dim": 5,
    "hidden_dims": [7],
    "dim": 6,
    "activation": "relu",
    "last_activation": "none",
    "normalize": True,
    "dropout": 0.0,
    "user_features": None,
    "item_features": None,
    "history": Mean(),
    "share_item_table": False,
    "cold_ids": "mean",
    "id_dropout": 0.0,
}

TWO_TOWER = {**TOWER, "id_extra_dim": 0}


def make_dat(schema, **changes):
    torch.manual_seed(0)
    return DAT(schema, **{**TOWER, "augment_gradient": "both", **changes})


def first_batch(data, negatives) -> Batch:
    data.negatives = negatives
    return data.train_batch(next(iter(data.train_dataloader())))


MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))


def build(name, data, *overrides):
    config = compose_derived(
        f"model={name}", f"data.history_length={data.options.history_length}", *overrides
    )
    torch.manual_seed(0)
    model = build_part(config, "model", schema=data.schema)
    if hasattr(model, "fit"):
        model.fit(data.train_interactions())
    return model.eval()
