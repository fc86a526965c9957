"""What every logged key means, and what a healthy and a sick value look like. `docs/metrics.md` shows it as a table."""

import re
from typing import NamedTuple


class Meaning(NamedTuple):
    """A row of the table."""

    meaning: str
    healthy: str = ""
    sick: str = ""


METRICS = {
    "reward": Meaning(
        "mean reward of all rollouts",
        "rises",
        "flat from the start: the grader or the format",
    ),
    "accuracy/plain": Meaning(
        "share of plain rollouts that are correct; the paper's figure 3, left",
        "rises",
        "falls while `reward` rises: guidance is leaned on",
    ),
    "accuracy/plain/<stratum>": Meaning("share of plain rollouts of one stratum that are correct"),
    "accuracy/guided": Meaning(
        "share of guided rollouts that are correct",
        "above `accuracy/plain`",
        "near 0: guidance does not help; falling: the policy unlearns it",
    ),
    "guidance/triggered": Meaning(
        "problems that got guided rollouts",
        "falls",
        "all of them for ever",
    ),
    "guidance/rescued": Meaning(
        "triggered problems that a guided rollout solved and no plain one did",
        "",
        "0: Guide is Filter-GRPO that costs more",
    ),
    "guidance/rescued_share": Meaning("rescued over triggered"),
    "guidance/level": Meaning(
        "mean level of triggered problems' guidance, with `guidance.ladder`", "falls or stays low", "at the top"
    ),
    "guidance/reliance": Meaning(
        "mean over tokens of guided rollouts of log pi(y given guidance) - log pi(y plain), nats",
        "falls",
        "rises: what is learned does not transfer",
    ),
    "groups/solved": Meaning(
        "share of problems with any correct rollout",
        "rises",
    ),
    "groups/uniform_before": Meaning(
        "share of groups whose plain rewards are all equal (no gradient without guidance)",
        "",
        "near 1: too hard or too easy",
    ),
    "groups/uniform_after": Meaning(
        "share of groups whose rewards are all equal after guidance",
        "below `uniform_before`",
        "equal to it",
    ),
    "entropy": Meaning(
        "mean entropy of plain rollouts' tokens at the sampling temperature, nats",
        "falls slowly",
        "collapses to 0",
    ),
    "entropy/guided": Meaning("mean entropy of guided rollouts' tokens, nats"),
    "length": Meaning(
        "mean tokens of plain rollouts, EOS counted",
        "",
        "at `sampling.max_tokens`",
    ),
    "length/guided": Meaning("mean tokens of guided rollouts"),
    "truncated": Meaning(
        "share of rollouts that hit `sampling.max_tokens`",
        "near 0",
        "high: raise the limit",
    ),
    "rollouts": Meaning("rollouts sampled in the step, those of a ladder's failed levels, too"),
    "tokens": Meaning("tokens sampled in the step, likewise"),
    "total/rollouts": Meaning("rollouts sampled so far"),
    "total/tokens": Meaning("tokens sampled so far"),
    "grades/<verdict>": Meaning(
        "rollouts with that verdict of the grader (timeouts and crashes are named here); in a step with several graders also "
        "`grades/<verdict>/<grader>`",
        "",
        "many `timeout`, `memory` or `crashed`",
    ),
    "loss": Meaning("the loss, mean over the step's optimizer steps"),
    "grad_norm": Meaning(
        "gradient norm before clipping, mean over the step's optimizer steps",
        "",
        "spikes",
    ),
    "clip_fraction": Meaning(
        "share of tokens under clip whose gradient the clip took away",
        "0 on the first pass, then a few %",
        "above 0.2",
    ),
    "kl": Meaning(
        "k3 estimate of KL to the reference policy over `loss.kl_rows`, nats per token; only with `loss.beta`",
    ),
    "critic/value": Meaning("mean of the critic's values before the update", "near the mean reward", "far from it"),
    "critic/explained_variance": Meaning(
        "1 - Var(R - V) / Var(R) over the tokens of a step, before the update", "rises towards 1", "at or below 0"
    ),
    "critic/loss": Meaning("half the squared error of the values, clipped, mean over tokens", "falls"),
    "critic/clip_fraction": Meaning("share of tokens whose value the value clip holds back", "a few %", "above 0.3"),
    "critic/grad_norm": Meaning("gradient norm of the critic before clipping", "", "spikes"),
    "learning_rate": Meaning("learning rate of the step"),
    "optimizer_steps": Meaning(
        "optimizer steps taken; 0 when nothing was left to train on",
        "",
        "often 0",
    ),
    "ratio/mean": Meaning(
        "mean over tokens of guided rollouts of pi(plain prompt) / pi_old(guided prompt), whatever `loss.guided_ratio`",
        "below 1",
        "near 0",
    ),
    "ratio/p90": Meaning("90th percentile of that ratio"),
    "ratio/effective_sample_size": Meaning(
        "(sum w)^2 / (n sum w^2) of the ratios: 1 when all are equal",
        "",
        "near 0: few tokens carry the gradient",
    ),
    "mismatch/mean": Meaning(
        "mean difference of the sampler's and the trainer's log-probs, same weights and prompt",
        "below 1e-5 in float32",
        "large: sampler and trainer disagree",
    ),
    "mismatch/max": Meaning("largest difference of the sampler's and the trainer's log-probs"),
    "evaluation/pass@1": Meaning(
        "greedy accuracy on held-out problems; `.../<stratum>` for one stratum",
        "rises",
    ),
    "evaluation/sampled_pass@1": Meaning("pass@1 estimated from `evaluation.samples` rollouts at temperature 1"),
    "evaluation/pass@k": Meaning(
        "unbiased pass@k from the same rollouts, k in powers of two",
        "rises",
        "falls while pass@1 rises: diversity is lost",
    ),
}
"""Key -> meaning; <stratum> and <verdict> stand for any name, and k for any number."""


def markdown() -> str:
    """The table of `docs/metrics.md`."""
    lines = ["| key | meaning | healthy | sick |", "|---|---|---|---|"]
    for key, cells in METRICS.items():
        lines.append(f"| `{key}` |" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    return "\n".join(lines)


def help_for(key: str) -> str:
    """What a reader wants to know of a key, in a line; "" for one that is not known."""
    key = _PLACES.sub("pass@k", key)
    parent = key.rpartition("/")[0]
    any_name = (row for name, row in METRICS.items() if name.startswith(f"{parent}/<"))
    found = METRICS.get(key) or next(any_name, None) or METRICS.get(parent)
    if found is None:
        return ""
    said = [found.meaning] + [
        f"{name}: {text}" for name, text in (("healthy", found.healthy), ("sick", found.sick)) if text
    ]
    return "; ".join(said)


_PLACES = re.compile(r"pass@(?!1\b)[0-9]+")
