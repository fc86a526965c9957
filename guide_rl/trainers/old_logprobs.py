"""Old log-probs, worked out before the policy moves.

Who fills a `TrainRow`, under `loss.old_logprobs: recomputed`; "here" is a forward pass before the first optimizer
step, "first pass" the row's own forward pass in the update, "free" what costs no pass:

| row                                    | old                    | old_plain              |
|----------------------------------------|------------------------|------------------------|
| plain, first mini-batch                | first pass (free)      | first pass (free)      |
| plain, later mini-batch                | here                   | here, the same         |
| guided, first mini-batch               | here, guided prompt    | first pass (free)      |
| guided, later mini-batch               | here, guided prompt    | here                   |
| guided, of a ratio that reads no `old` | the sampler's (logged) | as other guided rows   |

Under `sampler` every `old` is the sampler's, and every `old_plain` the first pass.
"""

from collections.abc import Callable, Sequence

import torch

from guide_rl.config import LossConfig
from guide_rl.equations.ratios import NEEDS
from guide_rl.logprobs import Row, Scorer
from guide_rl.policy import Policy
from guide_rl.trainers.minibatches import Minibatch, RatioLog
from guide_rl.types import Group, Problem


def fill_old_logprobs(batches: Sequence[Minibatch], policy: Policy, scorer: Scorer, loss: LossConfig) -> None:
    """Fill what the table above says "here" of, and the sampler's; the update fills the rest.

    The policy has not moved when the first mini-batch is trained, so its first pass gives the old log-probs exactly.
    """
    rows = [row for batch in batches for row in batch.rows]
    if loss.old_logprobs == "sampler":
        for row in rows:
            row.take_sampler_logprobs(policy.device)
        return
    guided = [row for row in rows if row.guided]
    if "old_NT" in NEEDS[loss.guided_ratio]:
        for row, old_T in zip(guided, scorer.score_all(policy, [row.sampled for row in guided]), strict=True):
            row.old = old_T
    else:
        for row in guided:
            row.take_sampler_logprobs(policy.device)
    later = [row for batch in batches[1:] for row in batch.rows]
    for row, old_T in zip(later, scorer.score_all(policy, [row.plain for row in later]), strict=True):
        row.old_plain = old_T
        row.old = old_T if row.old is None else row.old


def log_untrained_guided_rows(
    groups: Sequence[Group],
    batches: Sequence[Minibatch],
    policy: Policy,
    scorer: Scorer,
    prompt_ids: Callable[[Problem, bool], tuple[int, ...]],
    ratios: RatioLog,
) -> None:
    """Log the ratios of guided rollouts that no mini-batch holds: metrics count every guided rollout."""
    trained = {id(row.rollout) for batch in batches for row in batch.rows}
    left = [(g.problem, r) for g in groups for r in g.rollouts if r.guided and id(r) not in trained]
    rows = [Row(prompt_ids(problem, False), rollout.token_ids) for problem, rollout in left]
    for (_, rollout), plain_T in zip(left, scorer.score_all(policy, rows), strict=True):
        ratios.add(rollout, plain_T, torch.tensor(rollout.logprobs, device=plain_T.device), recomputed=False)
