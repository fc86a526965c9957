"""A world small enough to enumerate: success, groups, updates and ratios as exact expectations.

A policy writes `length` tokens; the distribution of each depends on the problem, on the token before it, and on whether
the guidance is in the prompt. The logits of problem q are theta[q] + theta[-1], and with guidance theta[P + q] on top:
what is learned under one prompt moves the other and, through theta[-1], the other problems. Every expectation is a
sum over all rollouts and all groups, in float64, made of the package's own triggers, advantages and loss.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from inspect import signature
from itertools import product
from math import comb
from typing import Any

import torch
from torch import Tensor

from guide_rl.algorithm import TRIGGERS
from guide_rl.config import LossConfig
from guide_rl.equations.advantages import group_advantages
from guide_rl.equations.losses import aggregation_weights, policy_loss
from guide_rl.equations.ratios import Logprobs


@dataclass(frozen=True, eq=False)
class World:
    """P problems over sequences of V tokens; state V stands for "no token yet"."""

    theta: Tensor
    """Logits [2P + 1, V + 1, V], float64: a table for each problem, one for each guidance, one that all share."""
    correct_PN: Tensor
    """Which of the N = V ** length sequences, in the order of `sequences`, solve which problem; bool."""
    length: int
    k: int
    """Plain rollouts of a problem, and guided ones where the trigger fires."""

    @classmethod
    def of(
        cls, plain_PSV: Sequence[Any], guided_PSV: Sequence[Any], right: Sequence[str], length: int, k: int
    ) -> "World":
        """From probabilities [P, V + 1, V] without and with guidance; `right`: each problem's answers, a regex of tokens."""
        plain, guided = (torch.tensor(table, dtype=torch.float64).log() for table in (plain_PSV, guided_PSV))
        texts = ["".join(map(str, tokens)) for tokens in sequences(plain.shape[-1], length).tolist()]
        correct = torch.tensor([[bool(re.fullmatch(answers, text)) for text in texts] for answers in right])
        return cls(torch.cat([plain, guided - plain, torch.zeros_like(plain[:1])]), correct, length, k)

    @property
    def problems(self) -> range:
        """The problems' numbers."""
        return range(len(self.correct_PN))

    def table(self, q: int, guided: bool) -> Tensor:
        """log pi(token | token before) for problem q, [V + 1, V]."""
        logits = self.theta[q] + self.theta[-1]
        return (logits + self.theta[len(self.correct_PN) + q] if guided else logits).log_softmax(-1)

    def logprobs(self, q: int, guided: bool, level: str = "token") -> Tensor:
        """Log-probs of all sequences for problem q: [N, T], or [N, 1] at level `sequence`."""
        vocabulary = self.theta.shape[-1]
        tokens_NT = sequences(vocabulary, self.length)
        before_NT = torch.cat([torch.full_like(tokens_NT[:, :1], vocabulary), tokens_NT[:, :-1]], 1)
        logprobs_NT = self.table(q, guided)[before_NT, tokens_NT]
        return logprobs_NT.sum(1, keepdim=True) if level == "sequence" else logprobs_NT

    def chances(self, q: int, guided: bool = False) -> Tensor:
        """pi(sequence | prompt), [N]."""
        return self.logprobs(q, guided, "sequence")[:, 0].exp()

    def success(self, q: int, guided: bool = False) -> Tensor:
        """Equation 10: p of problem q, or p~ with guidance; a scalar with gradient."""
        return self.chances(q, guided)[self.correct_PN[q]].sum()

    def success_gradient(self, q: int) -> Tensor:
        """The gradient of p in theta, [D]."""
        theta = self.theta.clone().requires_grad_()
        return torch.autograd.grad(replace(self, theta=theta).success(q), theta)[0].flatten()

    def scores(self, q: int, guided: bool, level: str = "sequence") -> Tensor:
        """The gradient in theta of every log-prob: [N, T, D], or [N, 1, D] at level `sequence`."""

        def logprobs(theta: Tensor) -> Tensor:
            return replace(self, theta=theta).logprobs(q, guided, level)

        return torch.autograd.functional.jacobian(logprobs, self.theta, vectorize=True).flatten(2)


def sequences(vocabulary: int, length: int) -> Tensor:
    """All sequences, [V ** length, length], in lexical order."""
    return torch.tensor(list(product(range(vocabulary), repeat=length)))


@dataclass(frozen=True)
class Pattern:
    """All groups that have the same rewards: given these, their rollouts are independent."""

    probability: float
    rewards_G: Tensor
    guided_G: Tensor
    advantages_G: Tensor

    @property
    def failed(self) -> bool:
        """Whether all plain rollouts failed."""
        return not self.rewards_G[~self.guided_G].any()


def patterns(p: float, guided_p: float, k: int, trigger: str, **settings: Any) -> Iterator[Pattern]:
    """Every pattern of rewards: k plain rollouts, then k guided ones where `trigger` fires; `settings` of the advantages."""
    for plain in range(k + 1):
        plain_rewards = [1.0] * plain + [0.0] * (k - plain)
        k_guided = k if TRIGGERS[trigger]([reward == 1 for reward in plain_rewards]) else 0
        for guided in range(k_guided + 1):
            rewards_G = torch.tensor(plain_rewards + [1.0] * guided + [0.0] * (k_guided - guided), dtype=torch.float64)
            guided_G = torch.arange(len(rewards_G)) >= k
            probability = _binomial(plain, k, p) * _binomial(guided, k_guided, guided_p)
            yield Pattern(probability, rewards_G, guided_G, group_advantages(rewards_G, guided_G, **settings))


def expected_update(world: World, q: int, trigger: str, level: str = "token", **settings: Any) -> Tensor:
    """Minus the gradient of problem q's expected loss at theta = theta_old, [D]; `settings`: fields of `LossConfig`.

    `policy_loss` over every rollout that can stand in a place of a group, weighted by its probability and by 1/k; without
    1/|r| and 1/Q, since equation 12 sums over problems gradients of whole-sequence log-probs. At level `sequence` a
    rollout is one token, so that its ratio is that of equation 13.
    """
    loss, theta = LossConfig(**settings), world.theta.clone().requires_grad_()
    here = replace(world, theta=theta)
    probabilities: defaultdict[tuple[float, bool, float], float] = defaultdict(float)
    p, guided_p = float(world.success(q)), float(world.success(q, True))
    for pattern in patterns(p, guided_p, world.k, trigger, baseline=loss.baseline, normalize_std=loss.normalize_std):
        columns = (pattern.rewards_G.tolist(), pattern.guided_G.tolist(), pattern.advantages_G.tolist())
        for place in zip(*columns, strict=True):
            probabilities[place] += pattern.probability
    weights = []
    for (reward, guided, _), probability in probabilities.items():
        possible_N = world.correct_PN[q] == bool(reward)
        chances_N = torch.where(possible_N, world.chances(q, guided), 0.0)
        weights.append(probability * chances_N / chances_N.sum())
    each = len(chances_N)
    advantages_N = torch.tensor([place[2] for place in probabilities], dtype=torch.float64).repeat_interleave(each)
    guided_N = torch.tensor([place[1] for place in probabilities]).repeat_interleave(each)
    plain_NT, in_context_NT = (here.logprobs(q, guided, level).repeat(len(weights), 1) for guided in (False, True))
    ones_N = torch.ones(len(plain_NT), dtype=torch.float64)
    weights_N = torch.cat(weights) * aggregation_weights("constant", ones_N, ones_N * world.k, groups=1, max_tokens=1)
    old_NT = torch.where(guided_N[:, None], in_context_NT, plain_NT).detach()
    logprobs = Logprobs(plain_NT, old_NT, plain_NT.detach(), in_context_NT)
    mask_NT = torch.ones_like(old_NT, dtype=torch.bool)
    expected_loss, _ = policy_loss(logprobs, advantages_N, guided_N, mask_NT, weights_N, **loss_settings(loss))
    return -torch.autograd.grad(expected_loss, theta)[0].flatten()


def loss_settings(loss: LossConfig) -> dict[str, Any]:
    """The fields of `loss` that `policy_loss` takes."""
    taken = {p.name for p in signature(policy_loss).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return {field.name: getattr(loss, field.name) for field in fields(loss) if field.name in taken}


def coefficients(world: World, q: int, trigger: str) -> tuple[float, float, float]:
    """c in "expected update = c grad p" (sequence-level ratio), in three parts.

    They are: plain rows beside a plain success, plain rows without one, guided rows.
    """
    parts = [0.0, 0.0, 0.0]
    p, guided_p = float(world.success(q)), float(world.success(q, True))
    for pattern in patterns(p, guided_p, world.k, trigger):
        chance_G = torch.where(pattern.guided_G, guided_p, pattern.rewards_G.new_tensor(p))
        pull_G = torch.where(pattern.rewards_G == 1, 1 / chance_G, -1 / (1 - chance_G))
        rows_G = pattern.probability / world.k * pattern.advantages_G * pull_G
        parts[1 if pattern.failed else 0] += float(rows_G[~pattern.guided_G].sum())
        parts[2] += float(rows_G[pattern.guided_G].sum())
    return parts[0], parts[1], parts[2]


def guided_advantage(world: World, q: int, *, failed: bool, weighted: bool = False) -> float:
    """Equations 18 and 19: mean advantage of guided rollouts given that all plain ones failed, or not; `weighted`: of w A."""
    p, guided_p = float(world.success(q)), float(world.success(q, True))
    total = chance = 0.0
    for pattern in patterns(p, guided_p, world.k, "always"):
        if pattern.failed == failed:
            reward_G, advantage_G = pattern.rewards_G[pattern.guided_G], pattern.advantages_G[pattern.guided_G]
            weight_G = reward_G * p / guided_p + (1 - reward_G) * (1 - p) / (1 - guided_p)  # E[w | reward]
            total += pattern.probability * float((advantage_G * weight_G if weighted else advantage_G).mean())
            chance += pattern.probability
    return total / chance


def ratio_variances(plain_SV: Tensor, guided_SV: Tensor, length: int) -> tuple[float, float]:
    """Variance of the ratio under guided sampling, exact at any length: over all tokens, and of their product.

    Log-probs [V + 1, V] as `World.table` gives them. E[w | tokens before] is 1, so both variances are E[w^2] - 1.
    """
    squares_SV, chances_SV = (2 * plain_SV - guided_SV).exp(), guided_SV.exp()
    state_V, product_V, token = chances_SV[-1], squares_SV[-1], float(squares_SV[-1].sum())
    for _ in range(length - 1):
        token += float((state_V[:, None] * squares_SV[:-1]).sum())
        state_V, product_V = state_V @ chances_SV[:-1], product_V @ squares_SV[:-1]
    return token / length - 1, float(product_V.sum()) - 1


def _binomial(successes: int, trials: int, p: float) -> float:
    return comb(trials, successes) * p**successes * (1 - p) ** (trials - successes)
