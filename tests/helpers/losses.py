"""Small batches, alignment losses, and the gradients of a loss."""

import torch

from twotower.losses.alignment import CategoryAlignment
from twotower.types import Batch, Schema


def make_batch(
    positive, negative=None, num_draws=None, num_items=None, log_q=None, category=None, num_pairs=1
):
    num_items = num_items or 1 + max(positive)
    return Batch(
        user={},
        item={},
        item_index=torch.arange(num_items),
        category=torch.tensor(category if category is not None else [0] * num_items),
        positive=torch.tensor(positive),
        negative=None if negative is None else torch.tensor(negative),
        num_draws=None if num_draws is None else torch.tensor(num_draws),
        log_q=torch.tensor(log_q if log_q is not None else [0.0] * num_items),
        num_pairs=num_pairs,
    )


PAPER = {
    "major": "batch",
    "detach_major": False,
    "count": "pairs",
    "min_items": 2,
    "unbiased": True,
    "weighting": "none",
    "over_categories": "sum",
    "momentum": 0.0,
}


def paper_alignment(schema):
    return CategoryAlignment(schema, **PAPER)


def make_alignment(num_categories, counts=None, **changes):
    schema = Schema((), (), 9, 9, num_categories, tuple(counts or [0] * num_categories))
    return CategoryAlignment(schema, **{**PAPER, **changes})


class NoTask(torch.nn.Module):
    def forward(self, towers, batch):
        return towers.user.sum() * 0


def gradients(model, loss, batch):
    model.zero_grad()
    loss(model(batch), batch).total.backward()
    return {
        name: 0 if p.grad is None else p.grad.abs().sum().item()
        for name, p in model.named_parameters()
    }
