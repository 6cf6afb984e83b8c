"""Compares exported files with the model, on test users ranked as in evaluation."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.export.index import Searchable, search
from twotower.export.towers import OnnxTower, as_inputs
from twotower.retrieval.exact import encode_users, top_k_by_block
from twotower.types import EvalIndex, Model

FIRST_BATCHES = [1, 7]  # then the rest: an ONNX tower must take any batch size
WARM_UP = 20  # searches before those that are timed


class Sample(NamedTuple):
    """Test users.

    Attributes:
        features: of the user tower as ONNX takes them, each ``(num_users, ...)``.
        vector: ``(num_users, dim)`` or ``(num_users, num_interests, dim)``, by PyTorch.
        targets: the held-out items of each.
        seen: the items to leave out for each, as in evaluation.
        exact: ``(num_users, k)`` the best unseen items by exact search, padded with -1.
        score: ``(num_users, k)`` of these.
        hit_rate: of the exact ranks, as in evaluation.
    """

    features: dict[str, Tensor]
    vector: Tensor
    targets: list[np.ndarray]
    seen: list[np.ndarray]
    exact: np.ndarray
    score: np.ndarray
    hit_rate: float


@torch.no_grad()
def take_sample(
    model: Model, data: RetrievalDataModule, items: Tensor, num_users: int, k: int, seed: int
) -> Sample:
    """Random test users, and the results of exact search among ``items`` ``(num_items, dim)``."""
    position, num_targets = data.tables["position/test"], data.tables["targets/test"]
    order = torch.randperm(len(position), generator=torch.Generator().manual_seed(seed))
    chosen = order[:num_users].sort().values
    batch = data.eval_batch(EvalIndex(position[chosen].long(), num_targets[chosen].long()))
    vector = encode_users(model, batch.user)
    row, item = batch.seen_row, batch.seen_item
    score, exact = top_k_by_block(vector, items, row, item, k + 1)
    is_hit = _has_target(score, exact, batch.target, k)
    score, exact = score[:, :k], exact[:, :k]
    return Sample(
        features=as_inputs(batch.user),
        vector=vector,
        targets=[targets[targets >= 0].numpy() for targets in batch.target],
        seen=np.split(item.numpy(), np.searchsorted(row.numpy(), np.arange(1, len(chosen)))),
        exact=exact.where(score > float("-inf"), -1).numpy(),
        score=score.numpy(),
        hit_rate=is_hit.double().mean().item(),
    )


def _has_target(score: Tensor, item: Tensor, target: Tensor, k: int) -> Tensor:
    """``(num_users,)`` whether a target has a rank of at most ``k``, ties against the model.

    Args:
        score: ``(num_users, k + 1)`` the best, or fewer if there are fewer items.
        item: the same shape.
        target: ``(num_users, num_targets)`` items, -1 pads.
        k: as many items.
    """
    is_target = (item[:, :, None] == target[:, None]).any(2) & (score > float("-inf"))
    if score.shape[1] > k:  # then k + 1 items are not lower than a target with the last score
        is_target &= score > score[:, k:]
    return is_target.any(1)


def tower_difference(
    tower: OnnxTower, chunks: Iterable[tuple[dict[str, Tensor], Tensor]], tolerance: float
) -> float:
    """Largest difference of an entry between ONNX Runtime and PyTorch, over several batch sizes.

    Args:
        tower: exported.
        chunks: features, each ``(num, ...)``, and PyTorch's vectors for them, ``(num, ...)``.
        tolerance: relative to the largest entry of all vectors.

    Raises:
        UserError: if it is larger than the tolerance allows.
    """
    differences, largest = [], 1e-30
    for features, vector in chunks:
        sizes = FIRST_BATCHES if len(vector) > sum(FIRST_BATCHES) else []
        sizes = [*sizes, len(vector) - sum(sizes)]
        parts = {name: value.split(sizes) for name, value in features.items()}
        found = [tower({name: part[i] for name, part in parts.items()}) for i in range(len(sizes))]
        differences.append(np.abs(np.concatenate(found) - vector.numpy()).max())
        largest = max(largest, float(vector.abs().max()))
    difference = float(np.max(differences))  # NaN if one is
    if not difference <= tolerance * largest:
        raise UserError(
            f"{tower.name} differs from the model by {difference:.3g}: not exported; raise "
            "parity.tolerance if that is good enough"
        )
    return difference


def measure_index(index: Searchable, users: np.ndarray, sample: Sample, k: int) -> dict[str, float]:
    """Search for one user at a time, on one thread, without seen items, as in serving.

    Args:
        index: of the items.
        users: ``(num_users, ...)`` vectors of the exported tower.
        sample: the same users.
        k: length of the lists.

    Returns:
        ``recall`` of the exact lists, ``hit_rate``, ``max_score_difference`` from the exact scores
        place by place, and ``milliseconds``, the median of a search.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    queries = users.reshape(len(users), -1, users.shape[-1])  # (num_users, num_interests, dim)
    for query in queries[:WARM_UP]:
        index.search(query, k)
    recalls, hits, seconds, difference = [], [], [], 0.0
    for row, query in enumerate(queries):
        started = time.perf_counter()
        items, scores = search(index, query, sample.seen[row], k)
        seconds.append(time.perf_counter() - started)
        wanted = sample.exact[row][sample.exact[row] >= 0]
        recalls.append(np.isin(wanted, items).mean() if len(wanted) else 1.0)
        hits.append(np.isin(sample.targets[row], items).any())
        both = min(len(scores), len(wanted))
        differences = np.abs(scores[:both] - sample.score[row][:both])
        difference = max(difference, float(differences.max(initial=0.0)))
    faiss.omp_set_num_threads(threads)
    return {
        "recall": float(np.mean(recalls)),
        "hit_rate": float(np.mean(hits)),
        "max_score_difference": difference,
        "milliseconds": 1000 * float(np.median(seconds)),
    }
