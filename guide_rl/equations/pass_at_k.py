"""Unbiased pass@k: the chance that at least one of k attempts is right, estimated from n >= k of them.

Exact integer arithmetic, so nothing cancels or overflows, however large n is.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np


def pass_at_k(n: int, c: int, k: int) -> float:
    """The share of the k-subsets of n attempts, c of them correct, that hold a correct one.

    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374), rounded once. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"c must be between 0 and n ({n}), not {c}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and n ({n}), not {k}; sample more rollouts or lower k")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def mean_pass_at_k(corrects: Iterable[Sequence[bool] | np.ndarray], k: int) -> float:
    """Mean pass@k over problems: one row of booleans per problem (a 2-D array, or rows of different lengths).

    Raises ValueError without problems, for a row shorter than k, and for entries other than true and false.
    """
    values = [_row_pass_at_k(np.asarray(row), k) for row in corrects]
    if not values:
        raise ValueError("pass@k needs at least one problem")
    return math.fsum(values) / len(values)


def _row_pass_at_k(row: np.ndarray, k: int) -> float:
    if row.ndim != 1 or not np.isin(row, (0, 1)).all():
        raise ValueError(f"a row of `corrects` must be a list of booleans, one per rollout, not {row.tolist()}")
    return pass_at_k(row.size, int(np.count_nonzero(row)), k)
