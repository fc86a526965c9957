"""Logits -> one token per row, its log-prob and the entropy: exact inverse-CDF sampling, reproducible per request."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guide_rl.samplers.request_seed import request_key
from guide_rl.types import Request

GRAIN = 2.0**52
"""Probabilities become whole multiples of 1/GRAIN, which float64 adds without rounding in any order."""


@dataclass(frozen=True)
class Choice:
    """One step of N rows."""

    tokens_N: Tensor
    """The chosen tokens."""
    logprobs_N: Tensor
    """Their log-probs in the full distribution at the temperature, float32."""
    entropies_N: Tensor
    """The entropy of that distribution in nats, float32; NaN where a logit is NaN or none is finite."""


def choose(logits_NV: Tensor, uniforms_N: Tensor | None, *, temperature: float, top_p: float, top_k: int) -> Choice:
    """Draw one token per row from softmax(logits / temperature), or take the likeliest.

    Log-probs and entropies are those of the full distribution, before top_k and top_p cut it; greedy rows
    report temperature 1.

    Args:
        logits_NV: of the next token.
        uniforms_N: float64 in [0, 1); None for greedy.
        temperature: divides the logits (unused when greedy).
        top_p: keep the smallest set of likeliest tokens with at least this probability; 1 keeps all.
        top_k: keep the so many likeliest tokens; 0 keeps all.
    """
    scores_NV = logits_NV.float() if uniforms_N is None else logits_NV.float() / temperature
    logprobs_NV = scores_NV.log_softmax(-1)
    probs_NV = logprobs_NV.exp()
    # Masked tokens have log-prob -inf, and 0 * -inf would make the entropy NaN.
    entropies_N = -(probs_NV * logprobs_NV.clamp_min(torch.finfo(torch.float32).min)).sum(-1)
    if uniforms_N is None:
        tokens_N = scores_NV.argmax(-1)
    else:
        tokens_N = inverse_cdf(truncate(probs_NV, top_p=top_p, top_k=top_k), uniforms_N)
    return Choice(tokens_N, logprobs_NV.gather(-1, tokens_N[:, None])[:, 0], entropies_N)


def inverse_cdf(probs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds u times the total.

    The sums are exact, so a token of probability 0 is never chosen and the device does not matter.
    """
    cumulative_NV = whole_masses(probs_NV).cumsum(-1)
    targets_N1 = uniforms_N[:, None] * cumulative_NV[:, -1:]
    tokens_N1 = torch.searchsorted(cumulative_NV, targets_N1, right=True)
    return tokens_N1[:, 0].clamp_max(probs_NV.shape[-1] - 1)


def whole_masses(probs_NV: Tensor) -> Tensor:
    """Probabilities in units of 1/GRAIN, rounded down to whole numbers, float64."""
    return (probs_NV.double() * GRAIN).floor_()


def truncate(probs_NV: Tensor, *, top_p: float, top_k: int) -> Tensor:
    """Set the probabilities outside the top_k likeliest tokens, then outside their nucleus of top_p, to 0."""
    if 0 < top_k < probs_NV.shape[-1]:
        kept = probs_NV.topk(top_k, dim=-1)
        probs_NV = torch.zeros_like(probs_NV).scatter(-1, kept.indices, kept.values)
    if top_p < 1:
        sorted_NV, order_NV = probs_NV.sort(dim=-1, descending=True, stable=True)
        before_NV = sorted_NV.cumsum(-1) - sorted_NV
        outside_NV = before_NV >= top_p * sorted_NV.sum(-1, keepdim=True)
        outside_NV[:, 0] = False
        probs_NV = torch.zeros_like(probs_NV).scatter(-1, order_NV, sorted_NV.masked_fill(outside_NV, 0.0))
    return probs_NV


def request_uniforms(request: Request, count: int) -> Tensor:
    """The first `count` numbers in [0, 1) of the request's own stream, float64.

    Keyed by (seed, problem_id, index, guided) alone, so a rollout does not depend on the batch it ran in.
    """
    words = np.frombuffer(request_key(request), dtype="<u8")
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=words)).random(count))
