"""What 10 trials of equations 1 and 2 cost: `python benchmarks/gains.py`.

10,000 problems of all difficulties with 100 sampled and 100 greedy rollouts each; k = 16.
"""

import resource
import sys
import time

import numpy as np

from guide_rl.equations.gains import gain_trials

PROBLEMS, ROLLOUTS, K, TRIALS = 10_000, 100, 16, 10


def main() -> None:
    """Print seconds, peak memory, and the gains."""
    rng = np.random.default_rng(0)
    difficulty_P1 = rng.beta(0.3, 0.6, (PROBLEMS, 1))
    before_PR, samples_PN, after_PR = (
        rng.random((PROBLEMS, ROLLOUTS)) < np.minimum(1, difficulty_P1 + lift) for lift in (0, 0, 0.1)
    )
    wall, processor = time.perf_counter(), time.process_time()
    result = gain_trials(before_PR, samples_PN, after_PR, K, trials=TRIALS)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(
        f"{TRIALS} trials over {PROBLEMS:,} problems x {ROLLOUTS} rollouts: {wall:.3f} s "
        f"({processor:.3f} processor seconds), peak memory {peak_mib:.0f} MiB"
    )
    for name in ("progress", "regression", "net", "distillation", "capability"):
        estimate = getattr(result, name)
        print(f"{name}: {estimate.mean:,.1f}, standard error {estimate.standard_error:.1f}")


if __name__ == "__main__":
    main()
