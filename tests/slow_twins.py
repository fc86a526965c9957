"""The equations once more, written to be checked by eye: loops over lists of floats, no padding, no torch.

Parts that the loss treats as constants read a second, frozen copy of the rollout, so that finite differences
of a twin are the gradient that the real code must have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, sqrt
from typing import Any


@dataclass(frozen=True)
class Row:
    """One rollout: a list of its real tokens' numbers for each field."""

    guided: bool
    advantage: float
    new_plain: list[float]
    old: list[float]
    old_plain: list[float]
    new_guided: list[float]
    ref: list[float]
    entropy: list[float]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def advantages(rewards: list[float], guided: list[bool], baseline: str, normalize_std: bool) -> list[float]:
    if len(set(rewards)) == 1:
        return [0.0 for _ in rewards]
    result = []
    for i, reward in enumerate(rewards):
        compared_with = {
            "joint": rewards,
            "plain": [r for r, g in zip(rewards, guided, strict=True) if not g],
            "leave_one_out": [r for j, r in enumerate(rewards) if j != i],
        }[baseline]
        result.append(reward - mean(compared_with))
    variance = sum((r - mean(rewards)) ** 2 for r in rewards) / (len(rewards) - 1)
    return [a / (sqrt(variance) + 1e-6) for a in result] if normalize_std else result


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    below, above = ordered[floor(rank)], ordered[ceil(rank)]
    return below + (above - below) * (rank - floor(rank))


def guided_ratio(row: Row, frozen: Row, t: int, name: str, cap: float, level: str = "token") -> float:
    if name in ("sampling", "plain", "in_context"):
        above = row.new_guided if name == "in_context" else row.new_plain
        below = row.old_plain if name == "plain" else row.old
        logs = [a - b for a, b in zip(above, below, strict=True)]
        return exp({"token": logs[t], "sequence": sum(logs), "gspo": mean(logs)}[level])
    weight = {"none": 1.0, "truncated": min(exp(frozen.new_plain[t] - row.old[t]), cap)}[name]
    return weight * exp(row.new_plain[t] - frozen.new_plain[t])


def reshaped_ratio(row: Row, frozen: Row, t: int, settings: dict[str, Any]) -> float:
    name, cap, level = settings["guided_ratio"], settings["ratio_cap"], settings.get("ratio_level", "token")
    ratio = guided_ratio(row, frozen, t, name, cap, level)
    if settings["reshape"] == "none":
        return ratio
    all_frozen = [guided_ratio(frozen, frozen, s, name, cap, level) for s in range(len(row.old))]
    if settings["reshape"] == "static":
        constant = settings["reshape_constant"]
    else:
        constant = percentile(all_frozen, settings["reshape_percentile"])
    if settings["reshape_as"] == "surrogate":
        return ratio / (constant + ratio)
    if name == "in_context":
        grown = exp(row.new_guided[t] - frozen.new_guided[t])
    else:
        grown = exp(row.new_plain[t] - frozen.new_plain[t])
    return grown / (constant + all_frozen[t])


def token_loss(row: Row, frozen: Row, t: int, settings: dict[str, Any]) -> float:
    """What one token adds to the loss before aggregation: minus the braces of equation 6."""
    ratio = reshaped_ratio(row, frozen, t, settings) if row.guided else exp(row.new_plain[t] - row.old[t])
    surrogate = ratio * row.advantage
    if not row.guided or settings["clip_guided"]:
        clipped = min(max(ratio, 1 - settings["clip_low"]), 1 + settings["clip_high"])
        surrogate = min(surrogate, clipped * row.advantage)
    if row.guided and settings.get("ratio_level") == "sequence":
        surrogate /= len(row.old)  # one term a rollout: its tokens' terms are all the same
    loss = -surrogate - settings["entropy_coef"] * row.entropy[t]
    if not row.guided or settings["kl_rows"] == "all":
        log_ratio = row.ref[t] - row.new_plain[t]
        loss += settings["beta"] * (exp(log_ratio) - log_ratio - 1)
    return loss


def aggregate(groups: list[list[list[float]]], aggregation: str, scales: list[float], max_tokens: int) -> float:
    """Token numbers by group and rollout -> one number, in the nested means of the papers; not all rollouts empty."""
    if aggregation == "token_mean":
        return mean([number for rows in groups for row in rows for number in row])
    total = 0.0
    for rows, scale in zip(groups, scales, strict=True):
        for row in rows:
            if row:
                total += sum(row) / scale / (len(row) if aggregation == "sequence_mean" else max_tokens)
    return total / len(groups)


def policy_loss(
    groups: list[list[Row]],
    frozen_groups: list[list[Row]],
    settings: dict[str, Any],
    aggregation: str,
    scales: list[float],
    max_tokens: int,
) -> float:
    numbers = [
        [[token_loss(row, frozen, t, settings) for t in range(len(row.old))] for row, frozen in zip(*pair, strict=True)]
        for pair in zip(groups, frozen_groups, strict=True)
    ]
    return aggregate(numbers, aggregation, scales, max_tokens)
