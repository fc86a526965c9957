"""95 % confidence intervals of means over problems, and of the difference of two runs on the same problems.

The bootstrap draws problems again, with replacement. A problem comes with its rollouts, so it covers both which
problems a benchmark happens to have and which rollouts were sampled; it does not cover other training seeds. The functions
named `paper_` repeat the half widths of the paper's tables 4 and 5; each says what it leaves out.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Average = Literal["macro", "micro"]
"""Of several benchmarks: the mean of their means (each counts the same), or the mean over all their problems."""

TAILS = (0.025, 0.975)
NORMAL_QUANTILE = 1.96
CHUNK = 2**20
"""Numbers drawn at a time: bounds the memory (8 MiB), changes no result."""
ROUNDING = 1e-12
"""Mean differences this small beside the largest one are 0: sums of values like 0.2 do not cancel exactly."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval, in the unit of the values."""

    mean: float
    """Of the values themselves, not of the resamples."""
    low: float
    """2.5th percentile of the resampled means."""
    high: float
    """97.5th percentile."""


@dataclass(frozen=True)
class Difference(Interval):
    """The mean difference of two runs over the same problems and its 95 % confidence interval."""

    share_not_positive: float
    """Share of the resamples in which the first run is not ahead (mean difference <= 0; ties count). Read it like
    a one-sided p-value, but it is none: the resamples are centred on what was seen, not on no difference."""


def bootstrap(
    values: Sequence[ArrayLike] | np.ndarray, *, average: Average = "macro", resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over problems of the mean of one value a problem (pass@k, or the mean of greedy runs).

    values: [P] of one benchmark, or a list of such, one a benchmark. `macro` draws within each benchmark and averages the
    benchmarks' means; `micro` draws from all problems together. With one benchmark they are the same.

    Values that are all equal (or a single problem) give a width of 0, which is not certainty: with so few failures
    or successes there is nothing to resample. Raises ValueError for no values, values that are not finite, and resamples < 1.
    """
    benchmarks = _benchmarks(values, "values")
    means_R = _resampled_averages(benchmarks, average, resamples, seed)
    return Interval(_average(benchmarks, average), *_percentiles(means_R))


def paired_bootstrap(
    values: Sequence[ArrayLike] | np.ndarray,
    baseline: Sequence[ArrayLike] | np.ndarray,
    *,
    average: Average = "macro",
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """`bootstrap` of the differences `values - baseline`, problem by problem: how hard a problem is cancels out.

    Both as in `bootstrap`, with the same problems in the same order. Raises ValueError where the numbers of benchmarks or
    problems differ, and as `bootstrap` does.
    """
    firsts, seconds = _benchmarks(values, "values"), _benchmarks(baseline, "baseline")
    sizes, others = [v.size for v in firsts], [v.size for v in seconds]
    if sizes != others:
        raise ValueError(
            "a paired difference needs the same problems in both runs, "
            f"but values has {sizes} and baseline {others} problems in its benchmarks"
        )
    differences = [first - second for first, second in zip(firsts, seconds, strict=True)]
    means = np.append(_average(differences, average), _resampled_averages(differences, average, resamples, seed))
    means[np.abs(means) <= ROUNDING * max(float(np.abs(d).max()) for d in differences)] = 0.0
    share = float((means[1:] <= 0).mean())
    return Difference(float(means[0]), *_percentiles(means[1:]), share_not_positive=share)


def paper_pass_at_k_half_width(pass_at_k: float, problems: int, k: int) -> float:
    """The paper's half width of pass@16 (k = 16): 1.96 sqrt(p (1 - p) / (k N)) for N problems.

    As a fraction, like p. For the micro average p and N are of all problems. It counts the k rollouts of a problem as k
    independent measurements of pass@k, but together they are one: it is sqrt(k) times (at k = 16: four times)
    narrower than the binomial interval of N problems, 1.96 sqrt(p (1 - p) / N).
    Raises ValueError for p outside 0..1, and for N or k below 1.
    """
    if not 0 <= pass_at_k <= 1:
        raise ValueError(f"pass_at_k must be a fraction between 0 and 1, not {pass_at_k}; divide percentages by 100")
    if problems < 1 or k < 1:
        raise ValueError(f"problems and k must be at least 1, not {problems} and {k}")
    return NORMAL_QUANTILE * math.sqrt(pass_at_k * (1 - pass_at_k) / (k * problems))


def paper_greedy_half_width(run_means_R: Sequence[float]) -> float:
    """The paper's half width of greedy pass@1: 1.96 s / sqrt(R), s the sample standard deviation of the R runs' means.

    In the unit of the means; 0 for R = 1. It holds only what differs between greedy runs on the same problems (rounding,
    batching): 0 where decoding is deterministic, however few the problems. And 1.96 is too small for R = 5 (t: 2.78).
    Raises ValueError without runs.
    """
    if not len(run_means_R):
        raise ValueError("run_means_R must hold the mean of at least one run")
    if len(run_means_R) == 1:
        return 0.0
    return NORMAL_QUANTILE * statistics.stdev(map(float, run_means_R)) / math.sqrt(len(run_means_R))


def paper_macro_half_width(half_widths_B: Sequence[float]) -> float:
    """The paper's half width of a macro average: the mean of the benchmarks' half widths, greedy or pass@k.

    Half widths of independent errors combine to sqrt(sum of squares) / B, which is less: this one is too wide for what goes in.
    Raises ValueError without benchmarks.
    """
    if not len(half_widths_B):
        raise ValueError("half_widths_B must hold the half width of at least one benchmark")
    return statistics.fmean(half_widths_B)


def _benchmarks(values: Sequence[ArrayLike] | np.ndarray, name: str) -> list[np.ndarray]:
    one = len(values) > 0 and np.ndim(values[0]) == 0
    benchmarks = [np.asarray(benchmark, dtype=float) for benchmark in ([values] if one else values)]
    if not benchmarks or any(v.ndim != 1 or v.size == 0 or not np.isfinite(v).all() for v in benchmarks):
        raise ValueError(f"{name} must hold one finite number a problem, and at least one problem, for each benchmark")
    return benchmarks


def _average(benchmarks: list[np.ndarray], average: Average) -> float:
    return statistics.fmean(math.fsum(values_P) / values_P.size for values_P in _strata(benchmarks, average))


def _strata(benchmarks: list[np.ndarray], average: Average) -> list[np.ndarray]:
    """What is resampled apart and then counts the same: the micro average is the macro average of one pooled benchmark."""
    if average not in ("macro", "micro"):
        raise ValueError(f"average must be macro or micro, not {average!r}")
    return benchmarks if average == "macro" else [np.concatenate(benchmarks)]


def _resampled_averages(benchmarks: list[np.ndarray], average: Average, resamples: int, seed: int) -> np.ndarray:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    return np.mean([_resampled_means(v, resamples, rng) for v in _strata(benchmarks, average)], axis=0)


def _resampled_means(values_P: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of P values drawn with replacement: how often each distinct value is drawn is multinomial, and few are distinct."""
    distinct_D, counts_D = np.unique(values_P, return_counts=True)
    chunk = max(1, CHUNK // distinct_D.size)
    means_R = np.empty(resamples)
    for start in range(0, resamples, chunk):
        part = means_R[start : start + chunk]
        drawn_RD = rng.multinomial(values_P.size, counts_D / values_P.size, size=part.size)
        part[:] = drawn_RD @ distinct_D / values_P.size
    return means_R


def _percentiles(means_R: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means_R, TAILS)
    return float(low), float(high)
