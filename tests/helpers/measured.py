"""Samples for tests of the diagnostics."""

import torch

from tests.helpers.models import first_batch
from twotower.data.sampling import SharedUniform
from twotower.retrieval.corpus import Corpus
from twotower.training.diagnostics.measure import Limits, Sample

LIMITS = Limits(num_items=1000, num_categories=12, k=5)


def sample_of(data, model, train=True):
    batch = first_batch(data, SharedUniform(20, False))
    with torch.no_grad():
        corpus = Corpus.encoded(model, data.corpus(torch.device("cpu")), data.schema.num_items)
    return Sample(
        train=[batch] if train else [],
        users=[data.eval_batch(index) for index in data.val_dataloader()],
        corpus=corpus,
        corpus_features=lambda: data.corpus(torch.device("cpu")),
        item_features=data.item_features,
        category=data.tables["category"].long(),
        category_names=data.meta["categories"],
    )
