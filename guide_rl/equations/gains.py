"""What training changed: progress and regression (equation 1), self-distillation and capability gain (equation 2).

Arrays hold whether rollouts are correct: `before` of the untrained policy, `after` of the trained one, P problems in the same
order. Unsolved (U) and solved (S) problems are those that the untrained policy's pass@1 misses and gets.

The k of equation 2: for the *effective* gain the number of rollouts a problem that training sampled; for the *absolute* gain
`absolute_k` of the untrained policy's pass@k curve (appendix C).
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guide_rl.equations.pass_at_k import booleans, curves_from_counts


@dataclass(frozen=True)
class NetReward:
    """Equation 1, counted in problems."""

    unsolved: int
    """Size of U: problems wrong before."""
    progress: int
    """Wrong before, correct after."""
    regression: int
    """Correct before, wrong after."""

    @property
    def net(self) -> int:
        """Progress - regression: the change of the number of solved problems."""
        return self.progress - self.regression


@dataclass(frozen=True)
class Gains(NetReward):
    """Equation 2, counted in problems: progress = distillation + capability."""

    distillation: int
    """Progress on problems that at least one of the untrained policy's k samples solves."""
    capability: int
    """Progress on problems that none of them solves."""


@dataclass(frozen=True)
class Estimate:
    """Mean of the trials, and its standard error."""

    mean: float
    standard_error: float
    """Sample standard deviation / sqrt(trials). Only what drawing from the pool of rollouts varies: it shrinks with more
    trials, and holds neither the choice of problems (`intervals.bootstrap` does) nor that of training seeds."""


@dataclass(frozen=True)
class GainTrials:
    """Section 3.1.1: the counts of equations 1 and 2 over trials that draw from a pool of rollouts."""

    k: int
    """Samples of the untrained policy a problem in each trial."""
    trials: tuple[Gains, ...]
    """Each trial's counts."""
    unsolved: Estimate
    """Problems wrong before."""
    progress: Estimate
    """Wrong before, correct after."""
    regression: Estimate
    """Correct before, wrong after."""
    net: Estimate
    """Progress - regression."""
    distillation: Estimate
    """Progress that was within k samples."""
    capability: Estimate
    """Progress that was not."""


@dataclass(frozen=True, eq=False)
class SubsetCurves:
    """pass@k of the problems of one subset, plain and guided; means over axis 0 are the curves, sums the problems solved."""

    problems_P: np.ndarray
    """Which problems are in the subset: [P] bool; S of them."""
    plain_SK: np.ndarray
    """pass@k of each, on the plain rollouts that did not classify it: [S, K]."""
    guided_SK: np.ndarray
    """pass@k of each with guidance: [S, K]."""


@dataclass(frozen=True)
class GuidedGains:
    """Figure 2, middle and right."""

    ks: tuple[int, ...]
    """The K columns of the curves."""
    capability: SubsetCurves
    """C: problems unsolved at pass@1 of which none of the k plain samples is correct."""
    distillation: SubsetCurves
    """D: problems unsolved at pass@1 of which one is."""


def net_reward(before_P: ArrayLike, after_P: ArrayLike) -> NetReward:
    """Equation 1: R_net = sum over U of 1[correct after] (progress) - sum over S of 1[wrong after] (regression).

    before_P, after_P: whether each problem is solved at pass@1. Raises ValueError for other than booleans of one length.
    """
    before_P, after_P = booleans(before_P, "before_P", 1), booleans(after_P, "after_P", 1)
    _check_same_problems(before_P=before_P, after_P=after_P)
    return _net_reward(before_P, after_P)


def gains(before_P: ArrayLike, samples_PK: ArrayLike, after_P: ArrayLike) -> Gains:
    """Equation 2: progress, split by whether one of the untrained policy's k samples is correct.

    distillation = sum over U of 1[a sample is correct and correct after]; capability = sum over U of 1[all samples are
    wrong and correct after]. before_P and after_P as in `net_reward`; samples_PK: exactly the k samples of each problem.
    Raises ValueError for other than booleans and for shapes that do not fit.
    """
    before_P, after_P = booleans(before_P, "before_P", 1), booleans(after_P, "after_P", 1)
    samples_PK = booleans(samples_PK, "samples_PK", 2)
    _check_same_problems(before_P=before_P, samples_PK=samples_PK, after_P=after_P)
    return _gains(before_P, np.any(samples_PK, axis=1), after_P)


def absolute_k(pass_at_k_curve: Sequence[float] | np.ndarray, epsilon: float = 0.01) -> int | None:
    """The smallest k whose sample adds less than epsilon: (pass@k - pass@(k-1)) / pass@(k-1) < epsilon (appendix C).

    pass_at_k_curve: pass@1, pass@2, ... with no k left out. k with pass@(k-1) = 0 are passed over, since
    there the growth is not defined. None when the curve ends before its growth falls below epsilon (or is 0 throughout):
    more rollouts are needed. Raises ValueError for an empty curve, values outside 0..1, and epsilon <= 0.
    """
    curve_K = np.asarray(pass_at_k_curve, dtype=float)
    if curve_K.ndim != 1 or curve_K.size == 0 or not ((curve_K >= 0) & (curve_K <= 1)).all():
        raise ValueError("pass_at_k_curve must hold pass@1, pass@2, ..., each between 0 and 1")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, not {epsilon}")
    for k, (previous, current) in enumerate(itertools.pairwise(curve_K), start=2):
        if previous > 0 and (current - previous) / previous < epsilon:
            return k
    return None


def gain_trials(
    before_greedy_PR: ArrayLike,
    before_samples_PN: ArrayLike,
    after_greedy_PR: ArrayLike,
    k: int,
    *,
    trials: int = 10,
    seed: int = 0,
) -> GainTrials:
    """Equations 1 and 2 over trials drawn from a pool of rollouts (section 3.1.1).

    Each trial draws, for every problem, one greedy run of each policy (pass@1) and k of the untrained policy's N samples
    without replacement. The two policies may have different numbers of greedy runs. A trial of a seed draws the
    same of the untrained policy whatever the trained one is, so checkpoints are compared on the same U. For
    several benchmarks together, concatenate their problems: standard errors do not add up.

    Raises ValueError for other than booleans, shapes that do not fit, k outside 1..N, and trials < 2 (no standard error).
    """
    before_PR = booleans(before_greedy_PR, "before_greedy_PR", 2)
    after_PR = booleans(after_greedy_PR, "after_greedy_PR", 2)
    samples_PN = booleans(before_samples_PN, "before_samples_PN", 2)
    _check_same_problems(before_greedy_PR=before_PR, before_samples_PN=samples_PN, after_greedy_PR=after_PR)
    _check_enough("k", k, "before_samples_PN", samples_PN.shape[1])
    if trials < 2:
        raise ValueError(f"trials must be at least 2, not {trials}")
    pools = [(pool.sum(1), pool.shape[1], size) for pool, size in ((before_PR, 1), (samples_PN, k), (after_PR, 1))]
    counts = []
    for trial in range(trials):
        rng = np.random.default_rng((seed, trial))
        before_P, reachable_P, after_P = (_drawn_correct(*pool, rng) > 0 for pool in pools)
        counts.append(_gains(before_P, reachable_P, after_P))

    def estimate(name: str) -> Estimate:
        values = [getattr(gains, name) for gains in counts]
        return Estimate(statistics.fmean(values), statistics.stdev(values) / math.sqrt(trials))

    return GainTrials(
        k=k,
        trials=tuple(counts),
        unsolved=estimate("unsolved"),
        progress=estimate("progress"),
        regression=estimate("regression"),
        net=estimate("net"),
        distillation=estimate("distillation"),
        capability=estimate("capability"),
    )


def guided_gains(
    plain_PN: ArrayLike,
    guided_PM: ArrayLike,
    plain_greedy_PR: ArrayLike | None,
    k: int,
    ks: Sequence[int],
    *,
    seed: int = 0,
) -> GuidedGains:
    """pass@k of plain and guided rollouts of one policy on the problems that it misses plain (figure 2, middle and right).

    A seeded random part of the plain rollouts decides where a problem belongs: pass@1 by one greedy run (without greedy
    runs, by one sampled rollout) and k more sampled ones; C and D as in `GuidedGains`, solved problems in neither. pass@k
    of plain is then measured on the plain rollouts that are left, pass@k of guided on all guided ones. Measured on
    the k rollouts that classified, plain pass@j would be 0 on C for every j <= k and pass@k would be 1 on D, by
    construction: guidance would win on C, and lose on D, whatever it does. The paper does not say which rollouts it used.

    Shapes: plain_PN, guided_PM, plain_greedy_PR bool; ks the K points of the curves. Raises ValueError for other than booleans,
    shapes that do not fit, k < 1, and where max(ks) exceeds M or the plain rollouts that are left: N - k, without
    greedy runs N - k - 1.
    """
    plain_PN, guided_PM = booleans(plain_PN, "plain_PN", 2), booleans(guided_PM, "guided_PM", 2)
    arrays = {"plain_PN": plain_PN, "guided_PM": guided_PM}
    if plain_greedy_PR is not None:
        arrays["plain_greedy_PR"] = plain_greedy_PR = booleans(plain_greedy_PR, "plain_greedy_PR", 2)
    _check_same_problems(**arrays)
    if len(ks) == 0:
        raise ValueError("ks must hold at least one k")
    used = k + (plain_greedy_PR is None)
    left = plain_PN.shape[1] - used
    _check_enough("k", k, "plain_PN", plain_PN.shape[1])
    _check_enough("max(ks)", max(ks), f"plain_PN less the {used} that classify", left)
    _check_enough("max(ks)", max(ks), "guided_PM", guided_PM.shape[1])

    rng = np.random.default_rng(seed)
    correct_P, rollouts = plain_PN.sum(1), plain_PN.shape[1]
    if plain_greedy_PR is None:
        solved_P = _drawn_correct(correct_P, rollouts, 1, rng)
        correct_P, rollouts = correct_P - solved_P, rollouts - 1
    else:
        solved_P = _drawn_correct(plain_greedy_PR.sum(1), plain_greedy_PR.shape[1], 1, rng)
    samples_P = _drawn_correct(correct_P, rollouts, k, rng)
    plain_PK = curves_from_counts(correct_P - samples_P, rollouts - k, ks)
    guided_PK = curves_from_counts(guided_PM.sum(1), guided_PM.shape[1], ks)

    def subset(problems_P: np.ndarray) -> SubsetCurves:
        return SubsetCurves(problems_P, plain_PK[problems_P], guided_PK[problems_P])

    unsolved_P = solved_P == 0
    return GuidedGains(
        tuple(map(int, ks)),
        capability=subset(unsolved_P & (samples_P == 0)),
        distillation=subset(unsolved_P & (samples_P > 0)),
    )


def _net_reward(before_P: np.ndarray, after_P: np.ndarray) -> NetReward:
    progress, regression = int((~before_P & after_P).sum()), int((before_P & ~after_P).sum())
    return NetReward(unsolved=int((~before_P).sum()), progress=progress, regression=regression)


def _gains(before_P: np.ndarray, reachable_P: np.ndarray, after_P: np.ndarray) -> Gains:
    progress_P = ~before_P & after_P
    return Gains(
        **vars(_net_reward(before_P, after_P)),
        distillation=int((progress_P & reachable_P).sum()),
        capability=int((progress_P & ~reachable_P).sum()),
    )


def _drawn_correct(correct_P: np.ndarray, rollouts: int, drawn: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many of `drawn` rollouts of each problem are correct, drawn without replacement: nobody asks which ones."""
    return rng.hypergeometric(correct_P, rollouts - correct_P, drawn)


def _check_same_problems(**arrays: np.ndarray) -> None:
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"all must have the same problems (rows), but their numbers differ: {sizes}")
    empty = [name for name, array in arrays.items() if array.size == 0]
    if empty:
        raise ValueError(f"{' and '.join(empty)} must hold at least one problem and one rollout")


def _check_enough(name: str, wanted: int, pool: str, rollouts: int) -> None:
    if not 1 <= wanted <= rollouts:
        raise ValueError(
            f"{name} must be between 1 and the {max(rollouts, 0)} rollouts a problem of {pool}, not {wanted}; "
            "sample more rollouts or lower it"
        )
