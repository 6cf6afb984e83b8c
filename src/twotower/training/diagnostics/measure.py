"""Measures a model on a sample of users, items and training steps."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twotower.layers.precision import float32_weights, full_precision
from twotower.retrieval.corpus import Corpus
from twotower.retrieval.exact import encode_users
from twotower.training.diagnostics import measures
from twotower.training.diagnostics.probe import augmented_table, replaced, shuffled
from twotower.types import Batch, EvalBatch, Features, Model

MAX_POINTS = 5000  # items on the plane
SEED = 0  # of samples and shuffles: equal at every epoch, so that epochs can be compared

Values = dict[str, float]
Tables = dict[str, Any]


class Limits(NamedTuple):
    """Sizes of samples and results.

    Attributes:
        num_items: items of which vectors are compared.
        num_categories: categories in plots and in the log, the largest ones.
        k: cut-off of hit rates.
    """

    num_items: int
    num_categories: int
    k: int


class Sample(NamedTuple):
    """Data that a model is measured on.

    Attributes:
        train: recent training steps; may be empty.
        users: users with held-out items.
        corpus: vectors of all items.
        corpus_features: yields the features of all items in order.
        item_features: features of ``(batch,)`` corpus indices.
        category: ``(num_items,)``, -1 is missing.
        category_names: of the categories.
    """

    train: list[Batch]
    users: list[EvalBatch]
    corpus: Corpus
    corpus_features: Callable[[], Iterator[Features]]
    item_features: Callable[[Tensor], Features]
    category: Tensor
    category_names: list[str]


class Diagnosis(NamedTuple):
    """Results.

    Attributes:
        values: for the log.
        tables: for the plots, a matrix or columns by name.
    """

    values: Values
    tables: Tables


@torch.no_grad()
def measure(model: Model, sample: Sample, limits: Limits) -> Diagnosis:
    """Measure all that applies to the model, without a change to it or to random generators.

    All vectors are those of the evaluation, in full precision however the model trains.
    """
    with float32_weights(model), full_precision(sample.corpus.own.device, sample.corpus.own.dtype):
        user = [encode_users(model, batch.user) for batch in sample.users]  # (batch, dim) each
        rank = _ranks(sample, user, sample.corpus)
        items = _some_items(sample, limits.num_items)
        values = _mimic(model, sample, user)
        parts = [_geometry(model, sample, user, items), _own(model, sample, items)]
        parts.append(_swaps(model, sample, user, rank, limits.k))
        if sample.category_names:
            parts += [_hit_rates(sample, rank, limits), _covariances(sample, items, limits)]
    tables: Tables = {}
    for part in parts:
        values |= part.values
        tables |= part.tables
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    return Diagnosis(values, tables)


def _ranks(sample: Sample, user: list[Tensor], corpus: Corpus) -> list[Tensor]:
    """``(batch, num_targets)`` of each batch of users, 0 pads."""
    return [
        corpus.rank(vectors, batch.target, batch.seen_row, batch.seen_item)[0]
        for vectors, batch in zip(user, sample.users, strict=True)
    ]


def _some_items(sample: Sample, num: int) -> Tensor:
    """``(num,)`` corpus indices, ascending."""
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(sample.corpus), generator=generator)[:num]
    return chosen.sort().values.to(sample.corpus.own.device)


def _geometry(model: Model, sample: Sample, user: list[Tensor], items: Tensor) -> Diagnosis:
    """Cosine, effective rank and zero vectors of tower outputs and augmented vectors."""
    vectors = {"user": torch.cat(user).flatten(0, -2), "item": sample.corpus.rows(items)}
    if (a_u := augmented_table(model, "user")) is not None:
        vectors["a_u"] = torch.cat([a_u(batch.user["user_id"]) for batch in sample.users])
    if (a_v := augmented_table(model, "item")) is not None:
        vectors["a_v"] = a_v(sample.item_features(items)["item_id"])
    values = {}
    for name, rows in vectors.items():
        values[f"cosine/{name}"] = measures.mean_pairwise_cosine(rows)
        values[f"effective_rank/{name}"] = measures.effective_rank(rows)
        values[f"zero_share/{name}"] = measures.zero_share(rows)
    return Diagnosis(values, {"num_vectors": {name: len(rows) for name, rows in vectors.items()}})


def _mimic(model: Model, sample: Sample, user: list[Tensor]) -> Values:
    """Mimic error and R² on pairs of recent training steps and on held-out pairs."""
    a_u, a_v = (augmented_table(model, side) for side in ("user", "item"))
    if a_u is None and a_v is None:
        return {}
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for batch in sample.train:
        towers = model(batch)
        if towers.user_augmented is not None:
            pairs["train/a_u"].append((towers.user_augmented, towers.item[batch.positive]))
        if towers.item_augmented is not None:
            pairs["train/a_v"].append((towers.item_augmented[batch.positive], towers.user))
    for users, vectors in zip(sample.users, user, strict=True):
        row, place = (users.target >= 0).nonzero(as_tuple=True)  # (num_pairs,) each
        target = users.target[row, place]
        if a_u is not None:
            augmented = a_u(users.user["user_id"])[row]
            pairs["held_out/a_u"].append((augmented, sample.corpus.rows(target)))
        if a_v is not None:
            augmented = a_v(sample.item_features(target)["item_id"])
            pairs["held_out/a_v"].append((augmented, vectors[row]))
    values: Values = {}
    for name, parts in pairs.items():
        augmented, target = (torch.cat(side) for side in zip(*parts, strict=True))
        error, r2 = measures.mimic_fit(augmented, target)
        values |= {f"mimic_error/{name}": error, f"mimic_r2/{name}": r2}
    return values


def _swaps(
    model: Model, sample: Sample, user: list[Tensor], rank: list[Tensor], k: int
) -> Diagnosis:
    """Ranking metrics as trained, and with augmented vectors shuffled or replaced by their mean.

    The table has the users who get or lose a hit by it.
    """
    ranks = {"intact": rank}
    if (a_u := augmented_table(model, "user")) is not None:
        own = torch.cat([a_u(batch.user["user_id"]) for batch in sample.users])
        for name, others in _substitutes(own).items():
            with replaced(a_u, others):
                vectors = [encode_users(model, batch.user) for batch in sample.users]
            ranks[f"a_u_{name}"] = _ranks(sample, vectors, sample.corpus)
    if (a_v := augmented_table(model, "item")) is not None:
        own = torch.cat([a_v(chunk["item_id"]) for chunk in sample.corpus_features()])
        for name, others in _substitutes(own).items():
            with replaced(a_v, others):
                corpus = Corpus.encoded(model, sample.corpus_features(), len(sample.corpus))
            ranks[f"a_v_{name}"] = _ranks(sample, user, corpus)
    values, hit = {}, {}
    for name, parts in ranks.items():
        first = [part.where(part > 0, torch.inf).amin(1) for part in parts]
        best = torch.cat(first)  # (num_users,) rank of each user's best target
        hit[name] = best <= k
        values[f"hit_rate@{k}/{name}"] = hit[name].double().mean().item()
        values[f"mrr/{name}"] = (1 / best).mean().item()
    intact = hit.pop("intact")
    if not hit:
        return Diagnosis(values, {})
    table = {
        "k": k,
        "num_users": len(intact),
        "intact": values[f"hit_rate@{k}/intact"],
        "gained": {name: int((own & ~intact).sum()) for name, own in hit.items()},
        "lost": {name: int((intact & ~own).sum()) for name, own in hit.items()},
    }
    return Diagnosis(values, {"swaps": table})


def _substitutes(own: Tensor) -> dict[str, Tensor]:
    """Vectors ``(num, dim)`` to put in the place of the whole sample's ``own`` ones."""
    generator = torch.Generator().manual_seed(SEED)
    return {"shuffled": shuffled(own, generator), "mean": own.mean(0).expand_as(own)}


def _hit_rates(sample: Sample, rank: list[Tensor], limits: Limits) -> Diagnosis:
    """Hit rate by category of the target."""
    k, names = limits.k, sample.category_names
    ranks = torch.cat([part[part > 0] for part in rank])  # (num_targets,)
    target = torch.cat([batch.target[batch.target >= 0] for batch in sample.users])
    category = sample.category[target]
    targets, hits = measures.hits_by_category(ranks, category, len(names), k)
    chosen = _largest(targets, limits.num_categories, at_least=1)
    if not chosen:
        return Diagnosis({}, {})
    table = {
        "names": [names[index] for index in chosen],
        "targets": targets[chosen].tolist(),
        "hits": hits[chosen].tolist(),
    }
    values = {}
    for name, num, hit in zip(*table.values(), strict=True):
        values[f"category_hit_rate@{k}/{name}"] = hit / num
    return Diagnosis(values, {"hit_rate": {**table, "k": k}})


def _covariances(sample: Sample, items: Tensor, limits: Limits) -> Diagnosis:
    """Distances between the covariances of the categories' items, and the items on a plane."""
    category, vectors = sample.category[items], sample.corpus.rows(items)
    num_items = torch.bincount(category[category >= 0], minlength=len(sample.category_names))
    chosen = _largest(num_items, limits.num_categories, at_least=2)
    if len(chosen) < 2:
        return Diagnosis({}, {})
    distance, norm = measures.covariance_distances(vectors, category, chosen)
    to_largest = distance[0, 1:].mean()
    values = {
        "covariance_distance/to_largest": to_largest.item(),
        "covariance_distance/relative": (to_largest / norm[0]).item(),
    }
    names = [sample.category_names[index] for index in chosen]
    place = {index: number for number, index in enumerate(chosen)}
    step = -(-len(items) // MAX_POINTS)
    plane = {
        "names": names,
        "category": [place.get(index, -1) for index in category[::step].tolist()],
        "vectors": vectors[::step].float().cpu(),
    }
    covariance = {
        "names": names,
        "items": num_items[chosen].tolist(),
        "distance": distance.tolist(),
    }
    return Diagnosis(values, {"covariance": covariance, "plane": plane})


def _largest(size: Tensor, num: int, at_least: int) -> list[int]:
    """Indices of the ``num`` largest of ``(num_categories,)`` sizes, without too small ones."""
    order = size.argsort(descending=True, stable=True)[:num]
    return order[size[order] >= at_least].tolist()


def _own(model: Model, sample: Sample, items: Tensor) -> Diagnosis:
    """Numbers and vectors of the model's own ``diagnose``, if it has one."""
    if not hasattr(model, "diagnose"):
        return Diagnosis({}, {})
    values, vectors = {}, {}
    found = model.diagnose(sample.users[0].user, sample.item_features(items))
    for name, value in found.items():
        entries = value.tolist()
        if value.dim() == 0:
            values[name] = entries
        else:
            vectors[name] = entries
            values |= {f"{name}/{place}": entry for place, entry in enumerate(entries)}
    return Diagnosis(values, {"model": vectors})
