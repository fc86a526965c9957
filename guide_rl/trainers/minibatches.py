"""Groups -> mini-batches of rows with their advantages and weights; what is logged of the ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guide_rl.algorithm import keeps_gradient
from guide_rl.config import LossConfig, TrainRecipe
from guide_rl.equations.advantages import group_advantages, sample_reinforcement
from guide_rl.equations.losses import aggregation_weights
from guide_rl.equations.ratios import guidance_reliance, ratio_diagnostics
from guide_rl.logprobs import Row
from guide_rl.metrics import Metrics
from guide_rl.types import Group, Problem, Rollout, RolloutKey


@dataclass
class TrainRow:
    """One rollout as the update sees it."""

    rollout: Rollout
    plain: Row
    """The rollout under the plain prompt: what is trained."""
    sampled: Row
    """The rollout under the prompt that sampled it: what old log-probs are of."""
    reward: float
    advantage: float | Tensor
    """One number, or [T] of a critic."""
    weight: float
    old: Tensor | None = None
    """log pi_old under the prompt that sampled, [T]; who fills it stands in `old_logprobs`."""
    old_plain: Tensor | None = None
    """log pi_old under the plain prompt, [T]; the same as `old` for plain rows."""
    recomputed: bool = True
    """Whether `old` is the trainer's own and not the sampler's."""
    values: Tensor | None = None
    """The critic's values before the update, [T]."""
    returns: Tensor | None = None
    """What the critic is fitted to, [T]."""

    @property
    def idle(self) -> bool:
        """Whether its advantage is exactly 0, everywhere."""
        return not isinstance(self.advantage, Tensor) and self.advantage == 0

    @property
    def guided(self) -> bool:
        """Whether it was sampled with guidance."""
        return self.rollout.guided

    def take_sampler_logprobs(self, device: torch.device) -> None:
        """Use the sampler's log-probs as the old ones."""
        self.old = torch.tensor(self.rollout.logprobs, device=device)
        self.recomputed = False


@dataclass(frozen=True)
class Minibatch:
    """What one optimizer step is over."""

    counted: list[TrainRow]
    """The rows that the loss counts; where there are none, there is no optimizer step."""
    surrogate_only: bool
    """Whether nothing but the surrogate is in the loss, so that rows of advantage 0 add no gradient."""

    @property
    def rows(self) -> list[TrainRow]:
        """The rows that need a forward pass."""
        return [row for row in self.counted if not (self.surrogate_only and row.idle)]


def build_minibatches(
    groups: Sequence[Group], recipe: TrainRecipe, prompt_ids: Callable[[Problem, bool], tuple[int, ...]]
) -> list[Minibatch]:
    """Cut a step's groups into mini-batches of `optimizer.problems_per_minibatch` problems; a group is never split.

    Filtered groups leave the sum and the normaliser of their mini-batch; rollouts that the advantages leave out, and masked
    ones, leave the sum and the tokens of `token_mean`. Rows
    with an advantage of exactly 0 stay in the normaliser and run no forward pass where the loss is the surrogate alone.
    """
    size = recipe.optimizer.problems_per_minibatch or max(1, len(groups))
    batches = []
    for start in range(0, len(groups), size):
        chunk = groups[start : start + size]
        kept = [group for group in chunk if keeps_gradient(group, filter_uniform=recipe.loss.filter_uniform)]
        batches.append(_minibatch(kept, recipe, prompt_ids) if kept else Minibatch([], True))
    return batches


def _minibatch(
    groups: list[Group], recipe: TrainRecipe, prompt_ids: Callable[[Problem, bool], tuple[int, ...]]
) -> Minibatch:
    """One mini-batch's groups as rows with advantages and aggregation weights."""
    loss = recipe.loss
    rollouts: list[Rollout] = []
    plain_rows: list[Row] = []
    rewards: list[float] = []
    advantages: list[float | None] = []
    scales: list[int] = []
    for group in groups:
        plain_prompt = prompt_ids(group.problem, False)
        rollouts += group.rollouts
        plain_rows += [Row(plain_prompt, rollout.token_ids) for rollout in group.rollouts]
        rewards += group.rewards_G
        advantages += ADVANTAGES[loss.advantages](group, loss)
        scales += [recipe.sampling.k if loss.group_scale == "k" else len(group.rollouts)] * len(group.rollouts)
    masked = recipe.grading.truncated == "masked"
    lengths = [
        0 if advantage is None or (masked and rollout.finish == "length") else len(rollout.token_ids)
        for rollout, advantage in zip(rollouts, advantages, strict=True)
    ]
    weights_N = aggregation_weights(
        loss.aggregation,
        torch.tensor(lengths),
        torch.tensor(scales),
        groups=len(groups),
        max_tokens=recipe.sampling.max_tokens,
    )
    fields = zip(rollouts, plain_rows, rewards, advantages, weights_N.tolist(), strict=True)
    rows = [
        TrainRow(rollout, plain, Row(rollout.prompt_ids, rollout.token_ids), reward, advantage or 0.0, weight)
        for rollout, plain, reward, advantage, weight in fields
        if weight != 0
    ]
    return Minibatch(rows, loss.beta == 0 and loss.entropy_coef == 0)


def relative_to_group(group: Group, loss: LossConfig) -> list[float | None]:
    """GRPO: rewards against those of the whole group."""
    rewards_G, guided_G = torch.tensor(group.rewards_G, dtype=torch.float64), torch.tensor(group.guided_G)
    advantages_G = group_advantages(rewards_G, guided_G, baseline=loss.baseline, normalize_std=loss.normalize_std)
    return list(advantages_G.tolist())


def by_correctness(group: Group, loss: LossConfig) -> list[float | None]:
    """PSR, NSR and W-REINFORCE; None for rollouts that are left out."""
    weights = {"psr": (1.0, 0.0), "nsr": (0.0, 1.0), "w_reinforce": (loss.correct_weight, 1.0)}[loss.advantages]
    correct_G = torch.tensor([grade.correct for grade in group.grades])
    advantages_G = sample_reinforcement(correct_G, correct_weight=weights[0], incorrect_weight=weights[1])
    return [advantage or None for advantage in advantages_G.tolist()]


def by_critic(group: Group, loss: LossConfig) -> list[float | None]:
    """PPO: what `trainers.critic` fills in."""
    return [0.0] * len(group.rollouts)


ADVANTAGES: dict[str, Callable[[Group, LossConfig], list[float | None]]] = {
    "grpo": relative_to_group,
    "gae": by_critic,
    "psr": by_correctness,
    "nsr": by_correctness,
    "w_reinforce": by_correctness,
}
"""What each rollout of a group is worth; None leaves it out of the loss and of the tokens that `token_mean` counts."""


@dataclass
class RatioLog:
    """Log-probs before the update of every guided rollout of a step, under both prompts, and of plain ones."""

    keys: list[RolloutKey] = field(default_factory=list)
    plain: list[Tensor] = field(default_factory=list)
    guided: list[Tensor] = field(default_factory=list)
    mismatch: list[Tensor] = field(default_factory=list)

    def add(self, rollout: Rollout, plain_T: Tensor, old_T: Tensor, *, recomputed: bool) -> None:
        """A rollout's log-probs by the policy that sampled it, under the plain prompt and under its own."""
        if rollout.guided:
            self.keys.append(rollout.key)
            self.plain.append(plain_T)
            self.guided.append(old_T)
        if recomputed:
            self.compare(rollout, old_T)

    def compare(self, rollout: Rollout, old_T: Tensor) -> None:
        """A rollout's log-probs under the prompt that sampled it, beside what the sampler said."""
        self.mismatch.append((old_T - torch.tensor(rollout.logprobs, device=old_T.device)).abs())

    def ratios(self) -> dict[RolloutKey, list[float]]:
        """The ratio of plain to guided probability at every token, of every guided rollout by its key."""
        pairs = zip(self.plain, self.guided, strict=True)
        return dict(zip(self.keys, [(plain_T - guided_T).exp().tolist() for plain_T, guided_T in pairs], strict=True))

    def metrics(self) -> Metrics:
        """Ratio and reliance over the tokens of guided rollouts; mismatch over the tokens that were compared."""
        metrics: Metrics = {}
        if self.guided:
            plain, guided = torch.cat(self.plain).cpu(), torch.cat(self.guided).cpu()
            everywhere = torch.ones_like(plain, dtype=torch.bool)
            ratios = ratio_diagnostics((plain - guided).exp(), everywhere)
            reliance = guidance_reliance(guided, plain, everywhere)
            assert ratios is not None
            assert reliance is not None
            metrics |= {
                "ratio/mean": ratios.mean,
                "ratio/p90": ratios.p90,
                "ratio/effective_sample_size": ratios.effective_sample_size,
                "guidance/reliance": reliance,
            }
        if self.mismatch:
            mismatch = torch.cat(self.mismatch).cpu()
            metrics |= {"mismatch/mean": mismatch.double().mean().item(), "mismatch/max": mismatch.max().item()}
        return metrics
