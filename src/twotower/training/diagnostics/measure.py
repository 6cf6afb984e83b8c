"""All diagnostics of a model on a sample of users, items and training steps; what does not apply to the model is left out."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twotower.layers.precision import float32_weights, full_precision
from twotower.retrieval.encode import encode_corpus, encode_users
from twotower.retrieval.exact import target_ranks
from twotower.training.diagnostics import measures
from twotower.training.diagnostics.probe import (
    SIDES,
    augmented_table,
    constant,
    in_turn,
    replaced,
    shuffled,
)
from twotower.types import Batch, EvalBatch, Model

MAX_POINTS = 5000  # items on the plane
SEED = 0  # of samples and shuffles: the same at every epoch, so that epochs compare
SYMBOL = {"user": "a_u", "item": "a_v"}
Features = dict[str, Tensor]


class Limits(NamedTuple):
    """How much is looked at.

    Attributes:
        num_items: items for what is said of vectors.
        num_categories: categories, the largest, in plots and in the log.
        k: cut-off of hit rates.
    """

    num_items: int
    num_categories: int
    k: int


class Sample(NamedTuple):
    """What a model is measured on.

    Attributes:
        train: recent training steps; may be empty.
        users: users with held-out items.
        corpus: ``(num_items, dim)`` vectors of all items.
        corpus_features: yields the features of all items in order.
        item_features: features of ``(batch,)`` corpus indices.
        category: ``(num_items,)``, -1 is missing.
        category_names: of the categories.
    """

    train: list[Batch]
    users: list[EvalBatch]
    corpus: Tensor
    corpus_features: Callable[[], Iterator[Features]]
    item_features: Callable[[Tensor], Features]
    category: Tensor
    category_names: list[str]


class Diagnosis(NamedTuple):
    """What was found.

    Attributes:
        values: for the log.
        tables: for the plots: names with a matrix or with columns.
    """

    values: dict[str, float]
    tables: dict[str, Any]


@torch.no_grad()
def measure(model: Model, sample: Sample, limits: Limits) -> Diagnosis:
    """Measure; the model and the state of every random generator stay as they are.

    All vectors are those of the evaluation, in full precision however the model trains.
    """
    with float32_weights(model), full_precision(sample.corpus.device, sample.corpus.dtype):
        return _measure(model, sample, limits)


def _measure(model: Model, sample: Sample, limits: Limits) -> Diagnosis:
    user = [encode_users(model, batch.user) for batch in sample.users]  # (batch, dim) each
    rank = _ranks(sample, user, sample.corpus)
    items = _some_items(sample, limits.num_items)
    values, tables = _categories(sample, rank, items, limits)
    values |= _geometry(model, sample, user, items) | _mimic(model, sample, user)
    values |= _swaps(model, sample, user, rank, limits.k)
    if hasattr(model, "diagnose"):
        own = {
            name: value.float().cpu()
            for name, value in model.diagnose(
                sample.users[0].user, sample.item_features(items)
            ).items()
        }
        tables["model"] = {name: value.tolist() for name, value in own.items() if value.dim() == 1}
        for name, value in own.items():
            entries = (
                {name: value}
                if value.dim() == 0
                else {f"{name}/{place}": entry for place, entry in enumerate(value)}
            )
            values |= {key: entry.item() for key, entry in entries.items()}
    return Diagnosis(
        {name: value for name, value in values.items() if not math.isnan(value)}, tables
    )


def _ranks(sample: Sample, user: list[Tensor], corpus: Tensor) -> list[Tensor]:
    """``(batch, num_targets)`` of each batch of users, 0 pads."""
    return [
        target_ranks(vectors, corpus, batch.target, batch.seen_row, batch.seen_item)
        for vectors, batch in zip(user, sample.users, strict=True)
    ]


def _some_items(sample: Sample, num: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return (
        torch.randperm(len(sample.corpus), generator=generator)[:num]
        .sort()
        .values.to(sample.corpus.device)
    )


def _geometry(model: Model, sample: Sample, user: list[Tensor], items: Tensor) -> dict[str, float]:
    """Cosine, effective rank and zero vectors of the towers' outputs and of the augmented vectors."""
    vectors = {"user": torch.cat(user).flatten(0, -2), "item": sample.corpus[items]}
    features = {
        "user": [batch.user for batch in sample.users],
        "item": [sample.item_features(items)],
    }
    for side in SIDES:
        table = augmented_table(model, side)
        if table is not None:
            vectors[SYMBOL[side]] = torch.cat(
                [table(chunk[f"{side}_id"]) for chunk in features[side]]
            )
    values = {}
    for name, rows in vectors.items():
        values[f"cosine/{name}"] = measures.mean_pairwise_cosine(rows)
        values[f"effective_rank/{name}"] = measures.effective_rank(rows)
        values[f"zero_share/{name}"] = measures.zero_share(rows)
    return values


def _mimic(model: Model, sample: Sample, user: list[Tensor]) -> dict[str, float]:
    """Mimic error and R² on pairs that were trained on, and on held-out pairs."""
    a_u, a_v = (augmented_table(model, side) for side in SIDES)
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    towers = (
        [(model(batch), batch.positive) for batch in sample.train]
        if a_u is not None or a_v is not None
        else []
    )
    known = [batch.target >= 0 for batch in sample.users]
    row = [mask.nonzero()[:, 0] for mask in known]
    target = [batch.target[mask] for batch, mask in zip(sample.users, known, strict=True)]
    if a_u is not None:
        pairs["train/a_u"] = [
            (_known(tower.user_augmented), tower.item[positive]) for tower, positive in towers
        ]
        vectors = [a_u(batch.user["user_id"]) for batch in sample.users]
        pairs["held_out/a_u"] = [
            (a[r], sample.corpus[t]) for a, r, t in zip(vectors, row, target, strict=True)
        ]
    if a_v is not None:
        pairs["train/a_v"] = [
            (_known(tower.item_augmented)[positive], tower.user) for tower, positive in towers
        ]
        vectors = [a_v(sample.item_features(t)["item_id"]) for t in target]
        pairs["held_out/a_v"] = [(a, p[r]) for a, p, r in zip(vectors, user, row, strict=True)]
    values: dict[str, float] = {}
    for name, parts in pairs.items():
        if parts:
            fit = measures.mimic_fit(*(torch.cat(side) for side in zip(*parts, strict=True)))
            values |= {f"mimic_error/{name}": fit[0], f"mimic_r2/{name}": fit[1]}
    return values


def _known(vectors: Tensor | None) -> Tensor:
    assert vectors is not None, "a model with augmented tables gives their vectors"
    return vectors


def _swaps(
    model: Model, sample: Sample, user: list[Tensor], rank: list[Tensor], k: int
) -> dict[str, float]:
    """Ranking metrics of the sample as it is, with augmented vectors shuffled, and with their mean in their place."""
    found = {"intact": rank}
    table = augmented_table(model, "user")
    if table is not None:
        own = torch.cat([table(batch.user["user_id"]) for batch in sample.users])
        for name, swap in _swapped(table, own):
            with swap:
                vectors = [encode_users(model, batch.user) for batch in sample.users]
            found[f"a_u_{name}"] = _ranks(sample, vectors, sample.corpus)
    table = augmented_table(model, "item")
    if table is not None:
        own = torch.cat([table(chunk["item_id"]) for chunk in sample.corpus_features()])
        for name, swap in _swapped(table, own):
            with swap:
                corpus = encode_corpus(model, sample.corpus_features())
            found[f"a_v_{name}"] = _ranks(sample, user, corpus)
    values: dict[str, float] = {}
    for name, ranks in found.items():
        best = torch.cat(
            [part.where(part > 0, torch.inf).amin(1) for part in ranks]
        )  # each user's best target
        values |= {
            f"hit_rate@{k}/{name}": (best <= k).double().mean().item(),
            f"mrr/{name}": (1 / best).mean().item(),
        }
    return values


def _swapped(table: Any, own: Tensor) -> list[tuple[str, AbstractContextManager[None]]]:
    """Others' vectors of the whole sample, so that a chunk of one row has another's too; and the mean."""
    others = in_turn(shuffled(own, torch.Generator().manual_seed(SEED)))
    return [
        ("shuffled", replaced(table, others)),
        ("mean", replaced(table, constant(own.float().mean(0)))),
    ]


def _categories(
    sample: Sample, rank: list[Tensor], items: Tensor, limits: Limits
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Hit rate by category of the target, and distances between the covariances of the categories' items."""
    num, names = len(sample.category_names), sample.category_names
    if num == 0:
        return {}, {}
    flat = torch.cat([part[part > 0] for part in rank])
    target = torch.cat([batch.target[batch.target >= 0] for batch in sample.users])
    targets, hits = (
        column.cpu()
        for column in measures.hits_by_category(flat, sample.category[target], num, limits.k)
    )
    most = [
        index
        for index in targets.argsort(descending=True, stable=True)[: limits.num_categories].tolist()
        if targets[index] > 0
    ]
    rates = {names[index]: (hits[index] / targets[index]).item() for index in most}
    values = {f"category_hit_rate@{limits.k}/{name}": rate for name, rate in rates.items()}
    tables: dict[str, dict[str, Any]] = {
        "hit_rate": {
            "names": list(rates),
            "targets": targets[most].tolist(),
            "hits": hits[most].tolist(),
            "k": limits.k,
        },
    }
    category = sample.category[items]
    size = torch.bincount(category[category >= 0], minlength=num).cpu()
    large = [
        index
        for index in size.argsort(descending=True, stable=True)[: limits.num_categories].tolist()
        if size[index] > 1
    ]
    if len(large) > 1:
        distance, norm = measures.covariance_distances(sample.corpus[items], category, large)
        values["covariance_distance/to_largest"] = distance[0, 1:].mean().item()
        values["covariance_distance/relative"] = (distance[0, 1:].mean() / norm[0]).item()
        tables["covariance"] = {
            "names": [names[index] for index in large],
            "items": size[large].tolist(),
            "distance": distance.tolist(),
        }
        step = -(-len(items) // MAX_POINTS)
        place = {index: number for number, index in enumerate(large)}
        tables["plane"] = {
            "names": [names[index] for index in large],
            "name": [place.get(index, -1) for index in category[::step].tolist()],
            "vectors": sample.corpus[items[::step]].float().cpu(),
        }
    return values, tables
