"""The objective (paper, equation 6) as a loss: clip, aggregation, KL penalty, entropy bonus.

Every aggregation is one weight per row, worked out over a whole mini-batch: the loss is minus the sum over
rows of weight * (sum over real tokens of the surrogate). So losses and gradients of micro-batches add up to
those of the mini-batch, whatever the split. Padded entries may hold anything, nan included.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from guide_rl.equations import ratios
from guide_rl.equations.ratios import Logprobs


def clipped_surrogate(
    ratio_NT: Tensor, advantages: Tensor, clip_N: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """min[w A, clip(w, 1 - clip_low, 1 + clip_high) A] in the rows of `clip_N`, w A in the others (equations 4 to 6).

    Shapes: ratio_NT [N, T], advantages [N] or, token by token, [N, T] (cast to the ratio's dtype), clip_N [N] bool -> [N, T].
    """
    advantages = _by_token(advantages).to(ratio_NT.dtype)
    free_NT = ratio_NT * advantages
    clipped_NT = ratio_NT.clamp(1 - clip_low, 1 + clip_high) * advantages
    return torch.where(clip_N[:, None], torch.minimum(free_NT, clipped_NT), free_NT)


@torch.no_grad()
def clip_binds(ratio_NT: Tensor, advantages: Tensor, clip_N: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Where the clip takes a token's gradient away: w > 1 + clip_high and A > 0, or w < 1 - clip_low and A < 0.

    Shapes as in `clipped_surrogate` -> [N, T] bool; padded entries are to be masked by the caller.
    """
    advantages = _by_token(advantages)
    too_high_NT = (ratio_NT > 1 + clip_high) & (advantages > 0)
    too_low_NT = (ratio_NT < 1 - clip_low) & (advantages < 0)
    return clip_N[:, None] & (too_high_NT | too_low_NT)


def _by_token(advantages: Tensor) -> Tensor:
    """One advantage a row [N], or one a token [N, T] -> [N, 1] or [N, T]."""
    return advantages[:, None] if advantages.dim() == 1 else advantages


def sequence_mean(lengths_N: Tensor, scales_N: Tensor, groups: int, max_tokens: int) -> Tensor:
    """1 / (Q S |r|): mean per rollout, then per group, then over groups (the paper)."""
    return 1 / (groups * scales_N * lengths_N)


def token_mean(lengths_N: Tensor, scales_N: Tensor, groups: int, max_tokens: int) -> Tensor:
    """1 / (all tokens of the mini-batch), for every row (DAPO)."""
    return (1 / lengths_N.sum()).expand_as(lengths_N)


def constant(lengths_N: Tensor, scales_N: Tensor, groups: int, max_tokens: int) -> Tensor:
    """1 / (Q S max_tokens): a rollout's length does not dilute its gradient (Dr. GRPO)."""
    return 1 / (groups * scales_N * max_tokens)


AGGREGATIONS: dict[str, Callable[[Tensor, Tensor, int, int], Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "constant": constant,
}


def aggregation_weights(
    aggregation: str, lengths_N: Tensor, scales_N: Tensor, *, groups: int, max_tokens: int
) -> Tensor:
    """The weight of each row of a mini-batch, before it is split into micro-batches.

    `lengths_N` are real tokens |r|, `scales_N` the group scale S of the row's group (k, or its size), `groups`
    the number Q of groups in the normaliser: filtered groups are in neither, groups that merely have zero
    advantages are in both. A row without real tokens weighs 0.

    Shapes: [N] -> [N], float64. Raises ValueError for `groups` below 1.
    """
    if groups < 1:
        raise ValueError(f"a mini-batch of {groups} groups has no loss; skip it")
    weights_N = AGGREGATIONS[aggregation](lengths_N.double(), scales_N.double(), groups, max_tokens)
    return torch.where(lengths_N > 0, weights_N, 0.0)


def weighted_sum(values_NT: Tensor, mask_NT: Tensor, weights_N: Tensor) -> Tensor:
    """Sum over rows of weight * (sum over real tokens), a scalar in the values' dtype."""
    row_sums_N = torch.where(mask_NT, values_NT, 0.0).sum(1)
    return (row_sums_N * weights_N.to(values_NT.dtype)).sum()


def k3_kl_NT(new_NT: Tensor, ref_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Per-token estimate of D_KL(pi_theta || pi_ref), never negative.

    exp(d) - d - 1 with d = log pi_ref - log pi_theta (k3, http://joschu.net/blog/kl-approx.html); unbiased only
    for tokens that pi_theta sampled.
    Shapes: [N, T] -> [N, T], 0 where padded, in nats; the gradient flows through `new_NT`.
    """
    difference_NT = torch.where(mask_NT, ref_NT.detach() - new_NT, 0.0)
    return torch.expm1(difference_NT) - difference_NT


def value_loss_NT(new_NT: Tensor, old_NT: Tensor, returns_NT: Tensor, clip: float | None) -> Tensor:
    """Half the squared error of a critic, clipped: 0.5 max[(V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2].

    A value that moves away from V_old by more than `clip` gains nothing by coming closer to R (PPO's value clip); None: no
    clip. Shapes: [N, T] -> [N, T]; the gradient flows through `new_NT`.
    """
    loss_NT = (new_NT - returns_NT).square()
    if clip is not None:
        near_NT = torch.minimum(torch.maximum(new_NT, old_NT - clip), old_NT + clip)
        loss_NT = torch.maximum(loss_NT, (near_NT - returns_NT).square())
    return 0.5 * loss_NT


def entropy_NT(logits_NTV: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats; a logit of -inf is a token of probability 0.

    Shapes: [..., V] -> [...]. Every position must be real: all others must be left out before.
    """
    logprobs_NTV = logits_NTV.log_softmax(-1)
    finite_NTV = logprobs_NTV.masked_fill(logprobs_NTV == -torch.inf, 0.0)
    return -(logprobs_NTV.exp() * finite_NTV).sum(-1)


KL_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": torch.logical_not,
    "all": torch.ones_like,
}
"""Rows that the KL penalty counts: guided_N -> [N] bool."""


@dataclass(frozen=True, slots=True)
class LossSums:
    """What a loss saw, detached, as sums over real tokens: the records of micro-batches can be added."""

    clipped: Tensor
    """Tokens whose gradient the clip took away."""
    clippable: Tensor
    """Tokens of the rows under clip."""
    kl: Tensor
    """Sum of the KL estimates; 0 without reference log-probs."""
    kl_tokens: Tensor
    """Tokens that `kl` is over."""

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def policy_loss(
    logprobs: Logprobs,
    advantages: Tensor,
    guided_N: Tensor,
    mask_NT: Tensor,
    weights_N: Tensor,
    *,
    ref_NT: Tensor | None = None,
    entropies_NT: Tensor | None = None,
    guided_ratio: str,
    ratio_cap: float,
    ratio_level: str = "token",
    clip_low: float,
    clip_high: float,
    clip_guided: bool,
    reshape: str,
    reshape_as: str,
    reshape_constant: float,
    reshape_percentile: float,
    beta: float,
    kl_rows: str,
    entropy_coef: float,
) -> tuple[Tensor, LossSums]:
    """Minus equation 6 for the rows of one micro-batch, to be minimised.

    loss = sum_n weight_n sum_t ( - surrogate_nt + beta * kl_nt - entropy_coef * entropy_nt ), the KL only in
    the rows of `kl_rows`. At `ratio_level` sequence the surrogates of a guided rollout sum to one term, w A: its gradient
    w A grad log pi(r) stands beside A grad log pi(r) of a plain one. The settings are the fields of `LossConfig` of the same
    names. `weights_N` comes from `aggregation_weights` over the mini-batch. Without a guided row it is plain GRPO, bit for bit.

    Shapes: [N, T] or [N] by suffix, advantages either; guided_N and mask_NT bool; ref_NT: log pi_ref under the plain prompt;
    entropies_NT with gradient. Raises ValueError for log-probs or entropies that a setting needs and are None, and
    for `clip_guided` with a reshaping, because a reshaped ratio is not 1 where the policies agree.
    """
    if clip_guided and reshape != "none":
        raise ValueError(f"clip_guided cannot clip ratios that reshape {reshape} has moved away from 1; turn one off")
    shaping = {"how": reshape, "reshape_as": reshape_as, "constant": reshape_constant, "percentile": reshape_percentile}
    ratio_NT = _row_ratios(logprobs, guided_N, mask_NT, guided_ratio, ratio_cap, ratio_level, shaping)
    clip_N = ~guided_N | clip_guided
    clip = {"clip_low": clip_low, "clip_high": clip_high}
    surrogate_NT = clipped_surrogate(ratio_NT, advantages, clip_N, **clip)
    if ratio_level == "sequence":
        lengths_N1 = mask_NT.sum(1, keepdim=True).clamp(min=1)
        surrogate_NT = torch.where(guided_N[:, None], surrogate_NT / lengths_N1, surrogate_NT)
    kl_mask_NT = mask_NT & KL_ROWS[kl_rows](guided_N)[:, None]
    kl_NT = None if ref_NT is None else k3_kl_NT(logprobs.new_plain_NT, ref_NT, kl_mask_NT)

    loss = -weighted_sum(surrogate_NT, mask_NT, weights_N)
    loss = loss + _term("beta", beta, "ref_NT", kl_NT, kl_mask_NT, weights_N)
    loss = loss - _term("entropy_coef", entropy_coef, "entropies_NT", entropies_NT, mask_NT, weights_N)

    clipped = (mask_NT & clip_binds(ratio_NT, advantages, clip_N, **clip)).sum()
    clippable = (mask_NT & clip_N[:, None]).sum()
    return loss, LossSums(clipped, clippable, *_sum_and_count(kl_NT, kl_mask_NT))


def _row_ratios(
    logprobs: Logprobs,
    guided_N: Tensor,
    mask_NT: Tensor,
    guided_ratio: str,
    cap: float,
    level: str,
    shaping: dict[str, Any],
) -> Tensor:
    """The ratio of every row by its kind, guided ones reshaped, [N, T]."""
    ratio_NT = ratios.plain_ratio(logprobs, mask_NT & ~guided_N[:, None])
    if not guided_N.any():
        return ratio_NT
    guided_mask_NT = mask_NT & guided_N[:, None]
    guided_NT = ratios.GUIDED_RATIOS[guided_ratio](logprobs, guided_mask_NT, cap=cap, level=level)
    numerator_NT = ratios.numerator(guided_ratio, logprobs)
    reshaped_NT = ratios.reshape(guided_NT, numerator_NT, guided_mask_NT, **shaping)
    return torch.where(guided_N[:, None], reshaped_NT, ratio_NT)


def _term(
    setting: str, coefficient: float, name: str, values_NT: Tensor | None, mask_NT: Tensor, weights_N: Tensor
) -> Tensor | float:
    if coefficient == 0:
        return 0.0
    if values_NT is None:
        raise ValueError(f"{setting} {coefficient} needs {name}, which is None; compute it or set {setting} to 0")
    return coefficient * weighted_sum(values_NT, mask_NT, weights_N)


def _sum_and_count(values_NT: Tensor | None, mask_NT: Tensor) -> tuple[Tensor, Tensor]:
    if values_NT is None:
        return torch.zeros((), device=mask_NT.device), torch.zeros((), dtype=torch.long, device=mask_NT.device)
    return torch.where(mask_NT, values_NT.detach(), 0.0).sum(), mask_NT.sum()
