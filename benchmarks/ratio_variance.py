"""How the guided importance ratio spreads with length, token-level against sequence-level: exact, and as samples show it.

Tokens are drawn by the token before them; a policy goes on along its route with chance 0.5 without guidance and 0.55 or 0.7
with it. `python benchmarks/ratio_variance.py docs/theory.md` writes the table there.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guide_rl.equations.ratios import Logprobs, guidance_reliance, plain_ratio, ratio_diagnostics
from guide_rl.theory.tables import fill, route
from guide_rl.theory.world import ratio_variances

LENGTHS, ROLLOUTS, PLAIN, GUIDED = (1, 4, 16, 64, 256), 20_000, 0.5, (0.55, 0.7)


def sample(chances_SV: np.ndarray, rollouts: int, length: int) -> tuple[Tensor, Tensor]:
    """The states before the tokens of sampled rollouts, and the tokens: [N, T] each; from probabilities [V + 1, V]."""
    rng, edges_SV = np.random.default_rng(0), chances_SV.cumsum(1)[:, :-1]
    states = np.full((rollouts, length + 1), chances_SV.shape[1])
    for t in range(length):
        states[:, t + 1] = (rng.random((rollouts, 1)) > edges_SV[states[:, t]]).sum(1)
    return torch.from_numpy(states[:, :-1]), torch.from_numpy(states[:, 1:])


def measure(guided_chance: float) -> Iterator[list[str | float]]:
    """Reliance, tokens; then, at both levels, the exact variance, that of the samples, and their effective size."""
    plain_SV, guided_SV = (
        torch.tensor(route((0, 1, 2, 0), chance), dtype=torch.float64).log() for chance in (PLAIN, guided_chance)
    )
    rollouts = sample(guided_SV.exp().numpy(), ROLLOUTS, max(LENGTHS))
    plain_NT, guided_NT = plain_SV[rollouts], guided_SV[rollouts]
    reliance = guidance_reliance(guided_NT, plain_NT, torch.ones_like(plain_NT, dtype=torch.bool))
    for length in LENGTHS:
        row: list[str | float] = [f"{reliance:.3f}", str(length)]
        new_NT, old_NT = plain_NT[:, :length], guided_NT[:, :length]
        levels = (Logprobs(new_NT, old_NT), Logprobs(new_NT.sum(1, keepdim=True), old_NT.sum(1, keepdim=True)))
        for logprobs, variance in zip(levels, ratio_variances(plain_SV, guided_SV, length), strict=True):
            mask_NT = torch.ones_like(logprobs.old_NT, dtype=torch.bool)
            ratio_NT = plain_ratio(logprobs, mask_NT)
            row += [variance, float(ratio_NT.var()), ratio_diagnostics(ratio_NT, mask_NT).effective_sample_size]
        yield row


def table() -> list[list[str | float]]:
    """The rows for both strengths of guidance."""
    return [row for chance in GUIDED for row in measure(chance)]


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(fill(page.read_text(), "ratio variance", table()))
