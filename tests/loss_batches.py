"""Small random mini-batches for the loss tests: ragged rows for the slow twin, padded tensors for the real code."""

import random
from dataclasses import dataclass, fields
from typing import Any

import torch
from slow_twins import Row
from torch import Tensor

from guide_rl.equations.losses import LossSums, aggregation_weights, policy_loss
from guide_rl.equations.ratios import Logprobs

MAX_TOKENS = 7
PAPER: dict[str, Any] = {
    "guided_ratio": "sampling",
    "ratio_cap": 1.3,
    "ratio_level": "token",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "clip_guided": False,
    "reshape": "none",
    "reshape_as": "surrogate",
    "reshape_constant": 1.0,
    "reshape_percentile": 90.0,
    "beta": 0.0,
    "kl_rows": "plain",
    "entropy_coef": 0.0,
}
"""Every setting of `policy_loss`; the cap is low enough to bind here."""

FULL = {**PAPER, "beta": 0.3, "kl_rows": "all", "entropy_coef": 0.1}
"""The same with every term of the loss switched on."""

TOKEN_FIELDS = ("new_plain", "old", "old_plain", "new_guided", "ref", "entropy")


def random_groups(seed: int, shape: list[list[int]], guided_from: int) -> list[list[Row]]:
    """Rows with the given numbers of tokens, by group; those from `guided_from` on in their group are guided."""
    rng = random.Random(seed)

    def row(guided: bool, length: int) -> Row:
        old = [rng.uniform(-3, -0.2) for _ in range(length)]
        near = [[x + rng.uniform(-0.6, 0.6) for x in old] for _ in range(4)]
        entropy = [rng.uniform(0, 2) for _ in range(length)]
        return Row(guided, rng.uniform(-2, 2), near[0], old, near[1], near[2], near[3], entropy)

    return [[row(i >= guided_from, length) for i, length in enumerate(lengths)] for lengths in shape]


@dataclass
class Batch:
    """The arguments of `policy_loss`, rows flattened over groups."""

    new_plain: Tensor
    old: Tensor
    old_plain: Tensor
    new_guided: Tensor
    ref: Tensor
    entropy: Tensor
    advantages: Tensor
    guided: Tensor
    mask: Tensor
    weights: Tensor

    def rows(self, index: slice | Tensor) -> "Batch":
        return Batch(*(getattr(self, field.name)[index] for field in fields(self)))

    def loss(self, settings: dict[str, Any]) -> tuple[Tensor, LossSums]:
        logprobs = Logprobs(self.new_plain, self.old, self.old_plain, self.new_guided)
        return policy_loss(
            logprobs,
            self.advantages,
            self.guided,
            self.mask,
            self.weights,
            ref_NT=self.ref,
            entropies_NT=self.entropy,
            **settings,
        )

    def gradients(self) -> list[Tensor]:
        """After backward: what reached the three tensors that carry gradient, zeros where nothing did."""
        leaves = (self.new_plain, self.new_guided, self.entropy)
        return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def padded(
    groups: list[list[Row]],
    *,
    seed: int = 0,
    aggregation: str = "sequence_mean",
    scales: list[float] | None = None,
    padding: float = 0.0,
    extra_columns: int = 2,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """Put the real tokens of each row into random columns, in order, and `padding` everywhere else."""
    rng = random.Random(seed)
    rows = [row for group in groups for row in group]
    width = max(len(row.old) for row in rows) + extra_columns
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for n, row in enumerate(rows):
        mask[n, rng.sample(range(width), len(row.old))] = True

    def tokens(name: str) -> Tensor:
        values = torch.full(mask.shape, padding, dtype=dtype)
        values[mask] = torch.tensor([x for row in rows for x in getattr(row, name)], dtype=dtype)
        return values.requires_grad_(name in ("new_plain", "new_guided", "entropy"))

    scales = scales or [float(len(group)) for group in groups]
    weights = aggregation_weights(
        aggregation,
        mask.sum(1),
        torch.tensor([scale for scale, group in zip(scales, groups, strict=True) for _ in group]),
        groups=len(groups),
        max_tokens=MAX_TOKENS,
    )
    advantages = torch.tensor([row.advantage for row in rows], dtype=dtype)
    guided = torch.tensor([row.guided for row in rows])
    logprobs = {name: tokens(name) for name in TOKEN_FIELDS}
    return Batch(**logprobs, advantages=advantages, guided=guided, mask=mask, weights=weights)
