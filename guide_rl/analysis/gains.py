"""Equations 1 and 2 for what was measured: every model, training step and benchmark against the untrained policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guide_rl.analysis.run_data import Measured
from guide_rl.equations.gains import GainTrials, absolute_k, gain_trials
from guide_rl.equations.pass_at_k import pass_at_k_curves


@dataclass(frozen=True)
class GainRow:
    """The gains of one model at one step on one benchmark (or on all together)."""

    model: str
    step: int | None
    benchmark: str
    problems: int
    trials: GainTrials
    absolute: bool = False
    """Whether its k is the untrained policy's absolute k (appendix C)."""


ALL = "(all)"
"""All benchmarks together; no benchmark can have this name."""


def gain_rows(
    measured: Measured, k: int, *, base: tuple[str, int | None] | None, trials: int = 10, seed: int = 0
) -> list[GainRow]:
    """Equations 1 and 2 for every model, step and benchmark, against the untrained policy (section 3.1.1).

    At a model's newest weights also with the absolute k of a benchmark, where the untrained policy's samples reach it.

    Args:
        measured: greedy and sampled rollouts of the untrained policy, greedy ones of the others.
        k: samples of the untrained policy that count as its reach.
        base: model and step of the untrained policy; None, and where it was not measured: each model's own step 0.
        trials: draws from the pool of rollouts.
        seed: of the draws.
    """
    rows = []
    for model in measured.models:
        for step in (None, *measured.steps(model)):
            pools = {}
            for benchmark in measured.benchmarks:
                known = base and measured.matrix(base[0], benchmark, greedy=True, step=base[1]) is not None
                start = base if base and known else (model, 0)
                if (model, step) == start or (step is None and measured.last(model, benchmark) is not None):
                    continue
                before = measured.matrix(start[0], benchmark, greedy=True, step=start[1])
                samples = measured.matrix(start[0], benchmark, greedy=False, step=start[1])
                after = measured.matrix(model, benchmark, greedy=True, step=step)
                if before is not None and samples is not None and after is not None and samples.shape[1] >= k:
                    pools[benchmark] = before, samples, after
            wholes = [pool for name, pool in pools.items() if "/" not in name]
            if len(wholes) > 1:
                pools[ALL] = tuple(_stacked([pool[i] for pool in wholes]) for i in range(3))  # type: ignore[assignment]
            for benchmark, (before, samples, after) in pools.items():
                reach = {k: False}
                if step in (None, measured.last(model)) and (
                    absolute := absolute_k(pass_at_k_curves(samples, range(1, samples.shape[1] + 1)).mean(0))
                ):
                    reach[absolute] = True
                for size, is_absolute in reach.items():
                    found = gain_trials(before, samples, after, size, trials=trials, seed=seed)
                    rows.append(GainRow(model, step, benchmark, len(before), found, is_absolute))
    return rows


def _stacked(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Benchmarks one under the other, cut to the fewest rollouts."""
    fewest = min(matrix.shape[1] for matrix in matrices)
    return np.concatenate([matrix[:, :fewest] for matrix in matrices])
