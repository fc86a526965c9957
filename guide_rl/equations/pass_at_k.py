"""Unbiased pass@k: the chance that at least one of k attempts is right, estimated from n >= k of them.

For one problem in exact integer arithmetic; for many problems and many k at once in float64, to 1e-12 up to n = 10,000.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def pass_at_k(n: int, c: int, k: int) -> float:
    """The share of the k-subsets of n attempts, c of them correct, that hold a correct one.

    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374), rounded once. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"c must be between 0 and n ({n}), not {c}")
    _check_k(n, k)
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def mean_pass_at_k(corrects: Iterable[Sequence[bool] | np.ndarray], k: int) -> float:
    """Mean pass@k over problems: one row of booleans per problem (a 2-D array, or rows of different lengths).

    Raises ValueError without problems, for a row shorter than k, and for entries other than true and false.
    """
    rows = [booleans(row, "a row of `corrects`", ndim=1) for row in corrects]
    if not rows:
        raise ValueError("pass@k needs at least one problem")
    return math.fsum(pass_at_k(row.size, int(row.sum()), k) for row in rows) / len(rows)


def pass_at_k_curves(corrects_PN: ArrayLike, ks: Sequence[int]) -> np.ndarray:
    """`pass_at_k` of every problem (rows of N booleans) at every k of `ks`: [P, K]; its mean over axis 0 is the curve.

    Raises ValueError for anything but a rectangle of booleans, and for a k outside 1..N.
    """
    corrects_PN = booleans(corrects_PN, "corrects_PN", ndim=2)
    return curves_from_counts(corrects_PN.sum(1), corrects_PN.shape[1], ks)


def curves_from_counts(counts_P: ArrayLike, n: int, ks: Sequence[int]) -> np.ndarray:
    """`pass_at_k` of problems with `counts_P` correct of n attempts each, at every k of `ks`: [P, K].

    1 - C(n-c, k) / C(n, k) with the fraction as the product over i = 0..c-1 of (n - k - i) / (n - i), for all c at once.
    Raises ValueError for a count outside 0..n and a k outside 1..n.
    """
    counts_P = np.asarray(counts_P)
    if counts_P.ndim != 1 or counts_P.dtype.kind not in "iu" or not ((counts_P >= 0) & (counts_P <= n)).all():
        raise ValueError(
            f"counts_P must be a list of whole numbers between 0 and n ({n}): the correct attempts of each problem"
        )
    i = np.arange(counts_P.max(initial=0))
    curves_PK = np.empty((counts_P.size, len(ks)))
    for column, k in enumerate(ks):
        _check_k(n, k)
        misses_by_count = np.cumprod(np.append(1.0, (n - k - i) / (n - i)))  # stays 0 from i = n - k on
        curves_PK[:, column] = 1 - misses_by_count[counts_P]
    return curves_PK


def booleans(values: ArrayLike, name: str, ndim: int) -> np.ndarray:
    """`values` as an array of bool with `ndim` (1 or 2) dimensions; ValueError, with `name`, for anything else than 0 and 1."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty(())
    if array.ndim != ndim or not (array.dtype == bool or ((array == 0) | (array == 1)).all()):
        shape = {1: "a list of booleans", 2: "a list of booleans of the same length for each problem"}[ndim]
        raise ValueError(f"{name} must be {shape}, not {values!r:.200}")
    return array.astype(bool, copy=False)


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and n ({n}), not {k}; sample more rollouts or lower k")
