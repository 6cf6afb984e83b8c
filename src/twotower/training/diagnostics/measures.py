"""What can be said of vectors: pure functions of tensors, each one number or one small matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_pairwise_cosine(vectors: Tensor) -> float:
    """Mean cosine of two different rows of ``(num, dim)``: 1 if all point one way, about 0 if they spread out.

    Zero rows are left out; NaN for fewer than two others.
    """
    unit = F.normalize(vectors[vectors.abs().sum(1) > 0].double(), dim=1)
    num = len(unit)
    return (
        ((unit.sum(0).square().sum() - num) / (num * (num - 1))).item() if num > 1 else float("nan")
    )


def effective_rank(vectors: Tensor) -> float:
    """How many directions the rows of ``(num, dim)`` use: the exponential of the entropy of the singular values' shares.

    It is 1 for rows on one line and ``dim`` for singular values that are all equal (Roy and Vetterli, EUSIPCO 2007); 0 for zeros.
    """
    gram = vectors.double().T @ vectors.double()  # (dim, dim)
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    return torch.special.entr(singular / total).sum().exp().item() if total > 0 else 0.0


def principal_axes(vectors: Tensor) -> tuple[Tensor, list[float]]:
    """``(num, dim)`` to ``(num, 2)`` along the two directions of most variance, and their shares of it."""
    centred = vectors.double() - vectors.double().mean(0)
    _, size, axes = torch.linalg.svd(centred, full_matrices=False)
    share = (size**2 / (size**2).sum().clamp_min(1e-12))[:2].tolist()
    missing = 2 - len(share)  # vectors of one number lie on a line
    return F.pad(centred @ axes[:2].T, (0, missing)), share + [0.0] * missing


def zero_share(vectors: Tensor) -> float:
    """Share of the rows of ``(num, dim)`` that are zero: what a last ReLU can make, and what no user ever finds."""
    return (vectors == 0).all(1).double().mean().item()


def mimic_fit(augmented: Tensor, target: Tensor) -> tuple[float, float]:
    """How well augmented vectors stand for the outputs that they mimic.

    Args:
        augmented: ``(num_pairs, dim)``.
        target: ``(num_pairs, dim)``.

    Returns:
        Mean squared error per pair, summed over ``dim``, and its R²: 0 is what the one best vector for everybody would reach, 1
        is perfect, below 0 is worse than a constant. NaN where all targets are equal.
    """
    augmented, target = augmented.double(), target.double()
    error = (augmented - target).square().sum(1).mean()
    constant = (target - target.mean(0)).square().sum(1).mean()
    return error.item(), (1 - error / constant).item() if constant > 0 else float("nan")


def covariance_distances(
    vectors: Tensor, category: Tensor, chosen: list[int]
) -> tuple[Tensor, Tensor]:
    """Frobenius distances of the covariance matrices of some categories.

    Args:
        vectors: ``(num, dim)``.
        category: ``(num,)``.
        chosen: categories with two rows each, at least.

    Returns:
        ``(num_chosen, num_chosen)`` distances and ``(num_chosen,)`` norms of the matrices.
    """
    covariance = torch.stack(
        [torch.cov(vectors[category == index].double().T).flatten() for index in chosen]
    )
    return (covariance[:, None] - covariance).square().sum(2).sqrt(), covariance.square().sum(
        1
    ).sqrt()


def hits_by_category(
    rank: Tensor, category: Tensor, num_categories: int, k: int
) -> tuple[Tensor, Tensor]:
    """Targets and hits of each category.

    Args:
        rank: ``(num_targets,)``, 1 is best.
        category: ``(num_targets,)`` of the targets, -1 is left out.
        num_categories: number of categories.
        k: a target is a hit within this rank.

    Returns:
        ``(num_categories,)`` numbers of targets, and of hits.
    """
    known = category >= 0
    targets = torch.bincount(category[known], minlength=num_categories)
    return targets, torch.bincount(category[known & (rank <= k)], minlength=num_categories)
