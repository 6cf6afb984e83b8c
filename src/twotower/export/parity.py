"""Do the exported files return what the model does? Measured on test users, as the evaluation ranks for them."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor

from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.export.index import search, tune
from twotower.export.towers import OnnxTower, as_inputs
from twotower.retrieval.encode import encode_users
from twotower.retrieval.exact import target_ranks, top_k
from twotower.types import EvalIndex, Model

ROWS = (
    1,
    7,
)  # of the first batches; the others take what is left, so that the batch is seen to be dynamic
WARM_UP = 20  # searches before those that are timed


class Sample(NamedTuple):
    """Test users.

    Attributes:
        features: of the user tower as ONNX takes them, each ``(num_users, ...)``.
        vector: ``(num_users, dim)`` or ``(num_users, num_interests, dim)``, by PyTorch.
        targets: the held-out items of each.
        seen: the items to leave out for each, as in evaluation.
        exact: ``(num_users, k)`` the best items by exact search among those not seen, -1 where there are not so many.
        score: ``(num_users, k)`` of these.
        hit_rate: of the exact ranks, as the evaluation has them.
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
    """Random test users, and what exact search finds for them among ``items`` ``(num_items, dim)``."""
    position, num_targets = data.tables["position/test"].long(), data.tables["targets/test"].long()
    chosen = (
        torch.randperm(len(position), generator=torch.Generator().manual_seed(seed))[:num_users]
        .sort()
        .values
    )
    batch = data.eval_batch(EvalIndex(position[chosen], num_targets[chosen]))
    vector = encode_users(model, batch.user)
    rank = target_ranks(vector, items, batch.target, batch.seen_row, batch.seen_item)
    row, item = batch.seen_row, batch.seen_item
    score, exact = top_k(vector, items, row, item, k)
    seen = np.split(item.numpy(), np.searchsorted(row.numpy(), np.arange(1, len(chosen))))
    targets = [targets[targets >= 0].numpy() for targets in batch.target]
    hit_rate = ((rank >= 1) & (rank <= k)).any(1).double().mean().item()
    exact = exact.where(score > float("-inf"), -1)
    return Sample(
        as_inputs(batch.user), vector, targets, seen, exact.numpy(), score.numpy(), hit_rate
    )


def tower_difference(
    tower: OnnxTower, features: dict[str, Tensor], vector: Tensor, tolerance: float
) -> float:
    """Largest difference of an entry between ONNX Runtime and PyTorch, over batches of several sizes.

    Raises:
        UserError: if it is more than ``tolerance`` of the largest entry.
    """
    sizes = list(ROWS) if len(vector) > sum(ROWS) else []
    sizes.append(len(vector) - sum(sizes))
    parts = {name: value.split(sizes) for name, value in features.items()}
    found = np.concatenate(
        [tower({name: part[i] for name, part in parts.items()}) for i in range(len(sizes))]
    )
    difference = float(np.abs(found - vector.numpy()).max())
    if not difference <= tolerance * max(1e-30, float(vector.abs().max())):
        path = Path(tower.session._model_path).name
        raise UserError(
            f"{path} differs from the model by {difference:.3g}: not exported; raise parity.tolerance if that will do"
        )
    return difference


def measure_index(
    index: faiss.Index, users: np.ndarray, sample: Sample, k: int
) -> dict[str, float]:
    """One user at a time, on one thread, seen items left out as in serving.

    Args:
        index: of the items.
        users: ``(num_users, ...)`` vectors as the exported tower gives them.
        sample: the same users.
        k: length of the lists.

    Returns:
        ``recall`` of the exact lists, ``hit_rate``, ``max_score_difference`` from the exact scores place by place, and
        ``milliseconds``, the median of a search.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    for vector in users[:WARM_UP]:
        index.search(vector.reshape(-1, users.shape[-1]), k)
    found, hits, seconds, difference = [], [], [], 0.0
    for row, vector in enumerate(users):
        started = time.perf_counter()
        items, scores = search(index, vector.reshape(-1, users.shape[-1]), sample.seen[row], k)
        seconds.append(time.perf_counter() - started)
        wanted = sample.exact[row][sample.exact[row] >= 0]
        found.append(np.isin(wanted, items).mean() if len(wanted) else 1.0)
        hits.append(np.isin(sample.targets[row], items).any())
        together = min(len(scores), len(wanted))
        difference = max(
            difference,
            float(np.abs(scores[:together] - sample.score[row][:together]).max(initial=0.0)),
        )
    faiss.omp_set_num_threads(threads)
    return {
        "recall": float(np.mean(found)),
        "hit_rate": float(np.mean(hits)),
        "max_score_difference": difference,
        "milliseconds": 1000 * float(np.median(seconds)),
    }


def measure_curve(
    index: faiss.Index, parameter: str, values: list[int], *measured: Any
) -> list[dict[str, float]]:
    """:func:`measure_index` at each value of the parameter, which is left at the last one."""
    points = []
    for value in values:
        tune(index, parameter, value)
        points.append({parameter: value, **measure_index(index, *measured)})
    return points
