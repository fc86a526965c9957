"""The policy update of one step on verl's workers: what `trainers.update` does in one process, from the same mini-batches.

Old log-probs and reference log-probs are worked out by the workers, under the prompt that sampled and under the plain one;
values, and every row of the update, see the plain prompt. What the logs of ratios need besides, guided rows' log-probs under
the plain prompt, those of the first mini-batch give in their first pass of the update. Departures, all exact: rows whose
advantage is 0 run no forward pass where nothing but the surrogate is in the loss; rows that only make ranks alike carry no
weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from guide_rl.algorithm import group_to_train
from guide_rl.config import TrainRecipe
from guide_rl.equations.ratios import NEEDS
from guide_rl.logprobs import Row
from guide_rl.metrics import Metrics
from guide_rl.trainers.critic import fill_advantages
from guide_rl.trainers.engine import NonFiniteLoss, Updated
from guide_rl.trainers.minibatches import Minibatch, RatioLog, TrainRow, build_minibatches
from guide_rl.trainers.schedule import learning_rate
from guide_rl.trainers.update import LOSS_SETTINGS
from guide_rl.trainers.verl.loss import actor_loss, critic_loss
from guide_rl.trainers.verl.private import Workers
from guide_rl.types import Group, Problem


class WorkersUpdate:
    """Moves the policy on verl's workers by one recipe's objective.

    Args:
        recipe: the objective and the optimizer.
        workers: hold policy, critic and reference policy.
        prompt_ids: (problem, guided) -> the prompt's token ids.
    """

    def __init__(
        self, recipe: TrainRecipe, workers: Workers, prompt_ids: Callable[[Problem, bool], tuple[int, ...]]
    ) -> None:
        self.recipe, self.workers, self.prompt_ids = recipe, workers, prompt_ids
        self.has_critic = recipe.loss.advantages == "gae"
        self.updates = 0
        """Steps that updated the policy: what verl's learning rate goes by."""
        settings = {name: getattr(recipe.loss, name) for name in LOSS_SETTINGS}
        workers.set_losses(
            partial(actor_loss, settings=settings),
            partial(critic_loss, clip=recipe.critic.clip) if self.has_critic else None,
        )

    def __call__(self, groups: Sequence[Group], step: int) -> Updated:
        """As `trainers.engine.Engine.update`."""
        recipe, ratios = self.recipe, RatioLog()
        kept = [group_to_train(group, recipe.guidance.keep_guided) for group in groups]
        batches = build_minibatches(kept, recipe, self.prompt_ids)
        counted = [row for batch in batches for row in batch.counted]
        judged = self._judge(counted) if self.has_critic and counted else {}
        warming_up = self.has_critic and step <= recipe.critic.warmup_steps
        trained = [] if warming_up else [_forward_rows(batch) for batch in batches if batch.counted]
        rows = [row for part in trained for row in part]
        self._fill_old_logprobs(rows, ratios)
        asked: list[TrainRow] = []
        if recipe.log_ratios or recipe.loss.guided_ratio == "plain":
            if trained and recipe.loss.guided_ratio != "plain":
                asked = [row for row in trained[0] if row.guided]
            self._fill_plain_logprobs(groups, rows, asked, ratios)
        metrics = {"learning_rate": learning_rate(recipe, self.updates + 1), **judged, "optimizer_steps": 0.0}
        if self.has_critic and counted:
            metrics |= self._update_critic(batches, step)
        if rows:
            metrics |= self._update_actor(trained, asked, step)
            self.updates += 1
        for row in asked:
            ratios.add(row.rollout, _given(row.old_plain), _given(row.old), recomputed=False)
        advantages = {row.rollout.key: float(torch.as_tensor(row.advantage).mean()) for row in counted}
        return Updated(metrics | ratios.metrics(), advantages, ratios.ratios() if recipe.log_ratios else {})

    # ------------------------------------------------------------------ before anything moves

    def _judge(self, rows: Sequence[TrainRow]) -> Metrics:
        """The critic's values, and the returns and advantages that follow."""
        for row, values_T in zip(rows, self.workers.values([row.plain for row in rows]), strict=True):
            row.values = values_T
        return fill_advantages(rows, self.recipe.critic)

    def _fill_old_logprobs(self, rows: Sequence[TrainRow], ratios: RatioLog) -> None:
        """log pi_old under the prompt that sampled, by the workers or by the servers; see `trainers.old_logprobs`."""
        loss = self.recipe.loss
        recomputed = [] if loss.old_logprobs == "sampler" else rows
        if "old_NT" not in NEEDS[loss.guided_ratio]:
            recomputed = [row for row in recomputed if not row.guided]
        for row, old_T in zip(recomputed, self.workers.log_probs([row.sampled for row in recomputed]), strict=True):
            row.old = old_T
            ratios.compare(row.rollout, old_T)
        for row in rows:
            if row.old is None:
                row.take_sampler_logprobs(torch.device("cpu"))

    def _fill_plain_logprobs(
        self, groups: Sequence[Group], rows: Sequence[TrainRow], asked: Sequence[TrainRow], ratios: RatioLog
    ) -> None:
        """log pi_old of guided rollouts, trained or not, under the plain prompt: what ratios are of before the update.

        Not of those `asked` in the update, whose first pass gives the same.
        """
        trained, later = {row.rollout.key: row for row in rows}, {row.rollout.key for row in asked}
        every = [(group.problem, rollout) for group in groups for rollout in group.rollouts if rollout.guided]
        guided = [(problem, rollout) for problem, rollout in every if rollout.key not in later]
        plain_rows = [Row(self.prompt_ids(problem, False), rollout.token_ids) for problem, rollout in guided]
        for (_, rollout), plain_T in zip(guided, self.workers.log_probs(plain_rows), strict=True):
            row = trained.get(rollout.key)
            old_T = torch.tensor(rollout.logprobs) if row is None or row.old is None else row.old
            ratios.add(rollout, plain_T, old_T, recomputed=False)
            if row is not None:
                row.old_plain = plain_T

    # ------------------------------------------------------------------ the optimizers

    def _update_actor(self, batches: Sequence[Sequence[TrainRow]], asked: Sequence[TrainRow], step: int) -> Metrics:
        """The policy's optimizer steps, and the means of what the losses said; `asked` get their `old_plain`."""
        rows = [row for part in batches for row in part]
        loss = self.recipe.loss
        columns: dict[str, Sequence[Tensor] | Tensor] = {
            "old_log_probs": [_given(row.old) for row in rows],
            "advantages": [torch.as_tensor(row.advantage).expand(len(row.plain.token_ids)).float() for row in rows],
            "guided": torch.tensor([row.guided for row in rows]),
            "weights": torch.tensor([row.weight for row in rows], dtype=torch.float64),
        }
        if asked:
            keys = {row.rollout.key for row in asked}
            columns["asked"] = torch.tensor([i + 1 if row.rollout.key in keys else 0 for i, row in enumerate(rows)])
        if loss.guided_ratio == "plain":
            columns["old_plain_log_probs"] = [_given(row.old_plain if row.guided else row.old) for row in rows]
        if loss.beta > 0:
            columns["ref_log_prob"] = self.workers.reference_log_probs([row.plain for row in rows])
        plain = [[row.plain for row in part] for part in batches]
        said = self.workers.update_actor(plain, columns, entropy=loss.entropy_coef > 0)
        self._refuse_non_finite(said, step, "policy", "optimizer.learning_rate")
        _take_first_pass(said.get("log_probs", []), rows)
        metrics = {
            "optimizer_steps": float(len(said["loss"])),
            "loss": fmean(said["loss"]),
            "grad_norm": fmean(said["grad_norm"]),
        }
        for name, total, count in (("clip_fraction", "clipped", "clippable"), ("kl", "kl", "kl_tokens")):
            if tokens := sum(said[f"sum/{count}"]):
                metrics[name] = sum(said[f"sum/{total}"]) / tokens
        return metrics

    def _update_critic(self, batches: Sequence[Minibatch], step: int) -> Metrics:
        """The critic's optimizer steps, over the mean of each mini-batch's tokens."""
        every = self.recipe.critic.rows == "all"
        fitted = [[row for row in batch.counted if every or not row.guided] for batch in batches]
        fitted = [rows for rows in fitted if rows]
        if not fitted:
            return {}
        rows = [row for part in fitted for row in part]
        tokens = [sum(len(row.plain.token_ids) for row in part) for part in fitted]
        weights = [1 / count for part, count in zip(fitted, tokens, strict=True) for _ in part]
        columns: dict[str, Sequence[Tensor] | Tensor] = {
            "values": [_given(row.values) for row in rows],
            "returns": [_given(row.returns) for row in rows],
            "weights": torch.tensor(weights, dtype=torch.float64),
        }
        said = self.workers.update_critic([[row.plain for row in part] for part in fitted], columns)
        self._refuse_non_finite(said, step, "critic", "critic.learning_rate")
        return {
            "critic/loss": fmean(said["loss"]),
            "critic/grad_norm": fmean(said["grad_norm"]),
            "critic/clip_fraction": sum(said["sum/clipped"]) / len(said["loss"]),
        }

    def _refuse_non_finite(self, said: dict[str, list[Any]], step: int, whose: str, knob: str) -> None:
        """Raise NonFiniteLoss for a loss or a gradient that is no number; verl has left out that optimizer step."""
        if not all(map(math.isfinite, said["loss"] + said["grad_norm"])):
            raise NonFiniteLoss(
                f"step {step}: the {whose}'s losses are {said['loss']}, its gradient norms {said['grad_norm']}. Nothing of the "
                f"step is saved. Lower {knob} or raise optimizer.warmup_steps, then start a new run from the last checkpoint "
                "(`guide export RUN FOLDER` makes a model of it)"
            )


def _forward_rows(batch: Minibatch) -> list[TrainRow]:
    """The rows of a mini-batch that need a pass; where none does, one without weight: its optimizer step is taken, too."""
    return batch.rows or [replace(batch.counted[0], weight=0.0)]


def _take_first_pass(said: Sequence[tuple[int, Any]], rows: Sequence[TrainRow]) -> None:
    """Fill `old_plain` with the log-probs that `actor_loss` gave of a row the first time: before the policy moved."""
    for asked, array_T in said:
        if rows[asked - 1].old_plain is None:
            rows[asked - 1].old_plain = torch.tensor(array_T)  # a copy: Ray's arrays are read-only


def _given(values_T: Tensor | None) -> Tensor:
    """What must have been filled."""
    assert values_T is not None
    return values_T.float().cpu()
