"""Measures of vectors: pure functions of tensors that give a number or a small matrix."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.retrieval.corpus import Corpus


def mean_pairwise_cosine(vectors: Tensor) -> float:
    """Mean cosine of two different rows of ``(num, dim)``: 1 if all have the same direction.

    Zero rows are left out; NaN for fewer than two others.
    """
    directed = vectors[vectors.any(1)]
    return Corpus(directed).mean_cosine() if len(directed) > 1 else math.nan


def effective_rank(vectors: Tensor) -> float:
    """Number of directions that the rows of ``(num, dim)`` use (Roy and Vetterli, EUSIPCO 2007).

    The exponential of the entropy of the singular values' shares: 1 for rows on one line, ``dim``
    for equal singular values. 0 for zeros.
    """
    gram = vectors.double().T @ vectors.double()  # (dim, dim)
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    return torch.special.entr(singular / total).sum().exp().item() if total > 0 else 0.0


def principal_axes(vectors: Tensor) -> tuple[Tensor, list[float]]:
    """``(num, 2)`` coordinates of ``(num, dim)`` on its two principal axes.

    The second result is the share of the variance along each axis.
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, size, axes = torch.linalg.svd(centred, full_matrices=False)
    share = (size**2 / (size**2).sum().clamp_min(1e-12))[:2].tolist()
    missing = 2 - len(share)  # vectors of one number lie on a line
    return F.pad(centred @ axes[:2].T, (0, missing)), share + [0.0] * missing


def zero_share(vectors: Tensor) -> float:
    """Share of the rows of ``(num, dim)`` that are zero, as a last ReLU can make them."""
    return (vectors == 0).all(1).double().mean().item()


def mimic_fit(augmented: Tensor, target: Tensor) -> tuple[float, float]:
    """How well augmented vectors predict the outputs that they mimic.

    Args:
        augmented: ``(num_pairs, dim)``.
        target: ``(num_pairs, dim)``.

    Returns:
        Mean squared error per pair, summed over ``dim``, and its R²: 1 is perfect, 0 is as good as
        the best constant vector, below 0 is worse. NaN if all targets are equal.
    """
    augmented, target = augmented.double(), target.double()
    error = (augmented - target).square().sum(1).mean()
    constant = (target - target.mean(0)).square().sum(1).mean()
    return error.item(), (1 - error / constant).item() if constant > 0 else math.nan


def covariance_distances(
    vectors: Tensor, category: Tensor, chosen: list[int]
) -> tuple[Tensor, Tensor]:
    """Frobenius distances of the covariance matrices of some categories.

    Args:
        vectors: ``(num, dim)``.
        category: ``(num,)``.
        chosen: categories with at least two rows each.

    Returns:
        ``(num_chosen, num_chosen)`` distances and ``(num_chosen,)`` norms of the matrices.
    """
    covariances = [torch.cov(vectors[category == index].double().T).flatten() for index in chosen]
    covariance = torch.stack(covariances)  # (num_chosen, dim * dim)
    return (covariance[:, None] - covariance).norm(dim=2), covariance.norm(dim=1)


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


def paired_change(gained: int, lost: int, num: int) -> tuple[float, float, float]:
    """Change of a rate when each of ``num`` users is measured twice, with its interval of 95 %.

    Half a user is added to each of the four cells (Agresti and Min, Statistics in Medicine 2005).

    Args:
        gained: users who have a hit only the second time.
        lost: users who have a hit only the first time.
        num: users.
    """
    middle = (gained - lost) / (num + 2)
    error = 1.96 * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (num + 2)) / (num + 2)
    return (gained - lost) / num, middle - error, middle + error
