"""Measures of how evenly counts are spread: quantiles, concentration, effective number."""

import math

import numpy as np

SHARES = {"5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "99%": 0.99}
QUANTILES = {"min": 0.0, **SHARES, "max": 1.0}


def spread(count: np.ndarray) -> dict[str, float]:
    """Quantiles of ``count`` ``(num,)``, each a count that occurs, and the mean."""
    values = np.quantile(count, list(QUANTILES.values()), method="inverted_cdf").tolist()
    return {**dict(zip(QUANTILES, values, strict=True)), "mean": float(count.mean())}


def concentration(count: np.ndarray) -> dict[str, float]:
    """Gini coefficient (0: all equal, near 1: one has all), share of the largest 1 % and 10 %."""
    ascending, num = np.sort(count), len(count)
    total = int(ascending.sum())
    gini = 2 * float((np.arange(1, num + 1) * ascending).sum()) / (num * total) - (num + 1) / num
    top = {
        f"top_{share}%": float(ascending[num - math.ceil(num * share / 100) :].sum() / total)
        for share in (1, 10)
    }
    return {"gini": gini, **top}


def evenness(size: np.ndarray) -> float:
    """Effective number of parts: ``exp(entropy)`` of their shares (Hill, Ecology 1973)."""
    share = size[size > 0] / max(1, size.sum())
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0
