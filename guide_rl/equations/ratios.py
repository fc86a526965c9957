"""Importance ratios w: what corrects guided rollouts for being learned under the plain prompt.

Every ratio is a differentiable tensor such that w * A, clipped or not, is a token's surrogate (paper,
equations 5 and 6; reshaping: appendix E). Padded entries may hold anything, nan included: they become a log
ratio of 0 before any arithmetic, so their ratio is 1 and their gradient exactly 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probs of the sampled tokens, natural log, each of shape [N, T]."""

    new_plain_NT: Tensor
    """log pi_theta(token | plain prompt); carries the gradient."""
    old_NT: Tensor
    """log pi_old(token | the prompt that sampled)."""
    old_plain_NT: Tensor | None = None
    """log pi_old(token | plain prompt); only guided rows are read, and only by guided ratio `plain`."""
    new_guided_NT: Tensor | None = None
    """log pi_theta(token | guided prompt), with gradient; only guided rows are read, and only by `in_context`."""


NEEDS: dict[str, tuple[str, ...]] = {
    "sampling": ("new_plain_NT", "old_NT"),
    "plain": ("new_plain_NT", "old_plain_NT"),
    "in_context": ("new_guided_NT", "old_NT"),
    "none": ("new_plain_NT",),
    "truncated": ("new_plain_NT", "old_NT"),
}
"""The fields of `Logprobs` that each guided ratio reads on guided rows, the numerator first."""


def each_token(log_ratio_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """The ratio of every token by itself (equation 6)."""
    return log_ratio_NT


def whole_sequence(log_ratio_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """The product of the rollout's ratios, at every token of it (equation 13); the loss makes them one term."""
    return log_ratio_NT.sum(1, keepdim=True).expand_as(log_ratio_NT)


def length_normalised(log_ratio_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """The geometric mean of the rollout's ratios, at every token of it (GSPO, arXiv 2507.18071, equation 7)."""
    return log_ratio_NT.sum(1, keepdim=True).div(mask_NT.sum(1, keepdim=True).clamp(min=1)).expand_as(log_ratio_NT)


LEVELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "token": each_token,
    "sequence": whole_sequence,
    "gspo": length_normalised,
}
"""What a token's log ratio becomes: (log_ratio_NT, 0 where padded; mask_NT) -> [N, T]. For guided rows only."""
LEVELLED = ("sampling", "plain", "in_context")
"""The guided ratios that have a level: the others are no ratio of two policies."""


def plain_ratio(logprobs: Logprobs, mask_NT: Tensor) -> Tensor:
    """Ratio of plain rows: pi_theta(r | x) / pi_old(r | x), as in equation 4."""
    return _ratio(logprobs.new_plain_NT, logprobs.old_NT, mask_NT, "token")


def sampling_ratio(logprobs: Logprobs, mask_NT: Tensor, *, cap: float, level: str = "token") -> Tensor:
    """The paper's ratio of guided rows: pi_theta(r | x) / pi_old(r | x~), as in equations 5 and 6."""
    return _ratio(logprobs.new_plain_NT, logprobs.old_NT, mask_NT, level)


def plain_prompt_ratio(logprobs: Logprobs, mask_NT: Tensor, *, cap: float, level: str = "token") -> Tensor:
    """The paper's unstable ablation: pi_theta(r | x) / pi_old(r | x), though x~ sampled."""
    return _ratio(logprobs.new_plain_NT, _given(logprobs, "old_plain_NT"), mask_NT, level)


def in_context_ratio(logprobs: Logprobs, mask_NT: Tensor, *, cap: float, level: str = "token") -> Tensor:
    """A control without transfer: pi_theta(r | x~) / pi_old(r | x~)."""
    return _ratio(_given(logprobs, "new_guided_NT"), logprobs.old_NT, mask_NT, level)


def no_ratio(logprobs: Logprobs, mask_NT: Tensor, *, cap: float, level: str = "token") -> Tensor:
    """Exactly 1, with the gradient of log pi_theta(r | x): REINFORCE on the plain prompt."""
    return _straight_through(logprobs.new_plain_NT, mask_NT)


def truncated_ratio(logprobs: Logprobs, mask_NT: Tensor, *, cap: float, level: str = "token") -> Tensor:
    """min(w, cap) as a constant weight on the gradient of log pi_theta(r | x), w the sampling ratio (CISPO)."""
    weight_NT = plain_ratio(logprobs, mask_NT).detach().clamp(max=cap)
    return weight_NT * _straight_through(logprobs.new_plain_NT, mask_NT)


GUIDED_RATIOS: dict[str, Callable[..., Tensor]] = {
    "sampling": sampling_ratio,
    "plain": plain_prompt_ratio,
    "in_context": in_context_ratio,
    "none": no_ratio,
    "truncated": truncated_ratio,
}
"""The ratio of guided rows: (logprobs, mask_NT, *, cap, level) -> w [N, T]; `cap` is `truncated`'s, `level` of `LEVELLED`."""


def numerator(guided_ratio: str, logprobs: Logprobs) -> Tensor:
    """The log-probs [N, T] in the numerator of a guided ratio: those that carry its gradient."""
    return _given(logprobs, NEEDS[guided_ratio][0])


def static_factor(ratio_NT: Tensor, mask_NT: Tensor, *, constant: float, percentile: float) -> Tensor:
    """LUFFY's f(w) = 1 / (c + w), c = `constant`."""
    return 1 / (constant + ratio_NT)


def adaptive_factor(ratio_NT: Tensor, mask_NT: Tensor, *, constant: float, percentile: float) -> Tensor:
    """Appendix E: f(w) = 1 / (P_q(w) + w), P_q the detached percentile of the rollout's own ratios.

    P_q is at least `SMALLEST_PERCENTILE`: where nearly all ratios underflow to 0, f stays finite, and so does its square.
    """
    percentile_N1 = row_percentile(ratio_NT, mask_NT, percentile).clamp(min=SMALLEST_PERCENTILE)
    return 1 / (percentile_N1 + ratio_NT)


SMALLEST_PERCENTILE = 1e-12
"""Far below any ratio that a float32 log-prob can tell from 0."""


RESHAPINGS: dict[str, Callable[..., Tensor] | None] = {
    "none": None,
    "static": static_factor,
    "adaptive": adaptive_factor,
}
"""f: (ratio_NT, mask_NT, *, constant, percentile) -> f(w) [N, T]; `none` leaves the ratio as it is."""


def as_surrogate(ratio_NT: Tensor, factor_NT: Tensor, numerator_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """w f(w), with the gradient through both: falls to 0 with w (LUFFY's shape)."""
    return ratio_NT * factor_NT


def as_weight(ratio_NT: Tensor, factor_NT: Tensor, numerator_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """f(w) as a constant weight on the gradient of log pi: largest at w = 0 (appendix E's stated purpose)."""
    return factor_NT.detach() * _straight_through(numerator_NT, mask_NT)


RESHAPED_AS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "surrogate": as_surrogate,
    "weight": as_weight,
}


def reshape(
    ratio_NT: Tensor,
    numerator_NT: Tensor,
    mask_NT: Tensor,
    *,
    how: str,
    reshape_as: str,
    constant: float,
    percentile: float,
) -> Tensor:
    """Reshape guided ratios by f(w) = 1 / (c + w) (paper, appendix E).

    As `surrogate` the result is w f(w); as `weight` its value is f(w) and its gradient f(w) grad log pi, where
    `numerator_NT` is log pi. How `none` returns the ratio itself, whatever `reshape_as`. The percentile is
    taken at every call over the real tokens of each row, by linear interpolation, and is a constant for the
    gradient.

    Shapes: all [N, T] -> [N, T]; `percentile` in 0..100. A row without real tokens gives finite numbers.
    """
    factor = RESHAPINGS[how]
    if factor is None:
        return ratio_NT
    ratio_NT = torch.where(mask_NT, ratio_NT, 1.0)
    factor_NT = factor(ratio_NT, mask_NT, constant=constant, percentile=percentile)
    return RESHAPED_AS[reshape_as](ratio_NT, factor_NT, numerator_NT, mask_NT)


def row_percentile(values_NT: Tensor, mask_NT: Tensor, percentile: float) -> Tensor:
    """Percentile of each row's real tokens, by linear interpolation, without gradient: [N, 1]; 1 for an empty row."""
    lengths_N1 = mask_NT.sum(1, keepdim=True)
    sorted_NT = values_NT.detach().masked_fill(~mask_NT, torch.inf).sort(1).values
    rank_N1 = (lengths_N1 - 1).clamp(min=0).double() * (percentile / 100)
    below_N1, above_N1 = (sorted_NT.gather(1, rank.long()) for rank in (rank_N1.floor(), rank_N1.ceil()))
    between_N1 = below_N1 + (above_N1 - below_N1) * (rank_N1 - rank_N1.floor()).to(values_NT.dtype)
    return torch.where(lengths_N1 > 0, between_N1, 1.0)


@dataclass(frozen=True, slots=True)
class RatioDiagnostics:
    """How far the ratios are from 1, over tokens."""

    mean: float
    """Mean of w; its expectation under the prompt that sampled is 1."""
    p90: float
    """90th percentile of w."""
    effective_sample_size: float
    """(sum w)^2 / (n sum w^2): 1 when all are equal, 1/n when a single token has all the weight."""


@torch.no_grad()
def ratio_diagnostics(ratio_NT: Tensor, mask_NT: Tensor) -> RatioDiagnostics | None:
    """Mean, 90th percentile and effective sample size of the ratios of real tokens, in float64; None without any.

    Shapes: any, the same for both.
    """
    ratios = ratio_NT[mask_NT].double()
    if ratios.numel() == 0:
        return None
    p90 = row_percentile(ratios[None], torch.ones_like(ratios[None], dtype=torch.bool), 90.0)
    size = ratios.sum() ** 2 / (ratios.numel() * (ratios**2).sum())
    return RatioDiagnostics(ratios.mean().item(), p90.item(), size.item())


@torch.no_grad()
def guidance_reliance(guided_logprobs_NT: Tensor, plain_logprobs_NT: Tensor, mask_NT: Tensor) -> float | None:
    """Mean over real tokens of log pi(y | x~) - log pi(y | x), in nats; None without any.

    Shapes: any, the same for all; meant for guided rollouts. 0 when the guidance changes nothing.
    """
    differences = guided_logprobs_NT[mask_NT].double() - plain_logprobs_NT[mask_NT].double()
    return differences.mean().item() if differences.numel() else None


def _ratio(numerator_NT: Tensor, denominator_NT: Tensor, mask_NT: Tensor, level: str) -> Tensor:
    return LEVELS[level](_masked_log_ratio(numerator_NT, denominator_NT, mask_NT), mask_NT).exp()


def _masked_log_ratio(numerator_NT: Tensor, denominator_NT: Tensor, mask_NT: Tensor) -> Tensor:
    # The gradient of a difference multiplies by no value, so what is masked here passes back 0 and never nan.
    return torch.where(mask_NT, numerator_NT - denominator_NT, 0.0)


def _straight_through(logprobs_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Exactly 1 in value, grad log pi in gradient."""
    return _masked_log_ratio(logprobs_NT, logprobs_NT.detach(), mask_NT).exp()


def _given(logprobs: Logprobs, name: str) -> Tensor:
    value: Tensor | None = getattr(logprobs, name)
    if value is None:
        raise ValueError(f"this guided ratio reads Logprobs.{name}, which is None; compute it for the guided rows")
    return value
