"""The policy update of one step: equation 6 of the paper over mini-batches of problems, then AdamW.

Read `PolicyUpdate.__call__`. Departures from the plain text, all exact: rows whose advantage is 0 run no forward pass
where nothing but the surrogate is in the loss; old log-probs of plain rows in the first mini-batch are its own
detached log-probs (the policy has not moved yet); all rows of a problem share one run of its plain prompt.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from guide_rl.algorithm import group_to_train
from guide_rl.config import TrainRecipe
from guide_rl.equations.losses import LossSums, policy_loss
from guide_rl.equations.ratios import Logprobs
from guide_rl.logprobs import Row, Scorer, padded, sharing_is_exact, unpad
from guide_rl.metrics import Metrics
from guide_rl.policy import Policy, explain_out_of_memory
from guide_rl.run_folder import RunFolder
from guide_rl.trainers.critic import Critic
from guide_rl.trainers.engine import NonFiniteLoss, Updated
from guide_rl.trainers.minibatches import Minibatch, RatioLog, TrainRow, build_minibatches
from guide_rl.trainers.old_logprobs import fill_old_logprobs, log_untrained_guided_rows
from guide_rl.trainers.reference import Reference
from guide_rl.trainers.schedule import learning_rate
from guide_rl.types import Group, Problem


class PolicyUpdate:
    """Moves one policy by one recipe's objective; holds what outlives a step: AdamW's state and the reference policy.

    Args:
        recipe: the objective and the optimizer.
        policy: what is trained, in place.
        autocast: the context of the matrix products' precision.
        prompt_ids: (problem, guided) -> the prompt's token ids.
        run: where the batch of a non-finite loss is written.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        policy: Policy,
        autocast: Callable[[], AbstractContextManager[None]],
        prompt_ids: Callable[[Problem, bool], tuple[int, ...]],
        run: RunFolder,
    ) -> None:
        self.recipe, self.policy, self.prompt_ids, self.run = recipe, policy, prompt_ids, run
        self.scorer = Scorer(
            temperature=recipe.sampling.temperature,
            tokens_per_microbatch=recipe.optimizer.tokens_per_microbatch,
            share_prompts=not recipe.model.gradient_checkpointing and sharing_is_exact(policy),
            autocast=autocast,
        )
        self.parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.reference = Reference.of(policy, recipe)
        self.critic = Critic(recipe, policy, self.scorer) if recipe.loss.advantages == "gae" else None

    @explain_out_of_memory("optimizer.tokens_per_microbatch")
    def __call__(self, groups: Sequence[Group], step: int) -> Updated:
        """`optimizer.epochs` passes over the mini-batches of a step's groups.

        Raises:
            NonFiniteLoss: the loss, its gradient or the new weights are NaN or infinite; says where the batch is.
            MemoryError: says which knob to lower.
        """
        recipe, ratios = self.recipe, RatioLog()
        kept = [group_to_train(group, recipe.guidance.keep_guided) for group in groups]
        batches = build_minibatches(kept, recipe, self.prompt_ids)
        counted = [row for batch in batches for row in batch.counted]
        judged = {} if self.critic is None or not counted else self.critic.judge(counted)
        warming_up = self.critic is not None and step <= recipe.critic.warmup_steps
        if self.reference is not None:
            self.reference.refresh(step)
        if not warming_up:
            fill_old_logprobs(batches, self.policy, self.scorer, recipe.loss)
        trained = [] if warming_up else batches
        log_untrained_guided_rows(groups, trained, self.policy, self.scorer, self.prompt_ids, ratios)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        totals = []
        for epoch in range(recipe.optimizer.epochs):
            for batch in batches:
                if batch.counted:
                    totals.append(self._optimizer_step(batch, step, ratios if epoch == 0 else None, warming_up))
        metrics = {"learning_rate": learning_rate(recipe, step), **judged}
        metrics["optimizer_steps"] = 0.0 if warming_up else float(len(totals))
        for key in sorted({key for total in totals for key in total}):
            metrics[key] = float(np.mean([total[key] for total in totals if key in total]))
        advantages = {row.rollout.key: float(torch.as_tensor(row.advantage).mean()) for row in counted}
        return Updated(metrics | ratios.metrics(), advantages, ratios.ratios())

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the policy's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "reference": None if self.reference is None else self.reference.state(),
            "critic": None if self.critic is None else self.critic.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.reference is not None:
            self.reference.restore(state["reference"])
        if self.critic is not None:
            self.critic.restore(state["critic"])

    def _optimizer_step(self, batch: Minibatch, step: int, ratios: RatioLog | None, warming_up: bool) -> Metrics:
        """Loss and gradient of one mini-batch, micro-batch by micro-batch, then AdamW; the critic's likewise."""
        if warming_up:
            assert self.critic is not None
            return self.critic.step(batch.counted, warming_up=True)
        recipe, rows = self.recipe, batch.rows
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        loss, sums = torch.zeros((), device=self.policy.device), None
        for part in self.scorer.microbatches([row.plain for row in rows]):
            part_loss, part_sums = self._backward([rows[i] for i in part], ratios)
            loss, sums = loss + part_loss, part_sums if sums is None else sums + part_sums
        of_critic = {} if self.critic is None else self.critic.step(batch.counted)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.max_grad_norm)
        if not torch.isfinite(loss + norm):
            self._refuse_non_finite(rows, step, float(loss), float(norm))
        self.optimizer.step()
        if not torch.isfinite(torch.nn.utils.get_total_norm(self.parameters)):
            self._refuse_non_finite(rows, step, float(loss), float(norm), "The weights are no longer finite")
        return {"loss": float(loss), "grad_norm": float(norm), **of_critic} | ({} if sums is None else _means(sums))

    def _backward(self, rows: Sequence[TrainRow], ratios: RatioLog | None) -> tuple[Tensor, LossSums]:
        """Loss and gradient of one micro-batch; on its first pass a row without old log-probs takes its own."""
        recipe, guided_N = self.recipe, torch.tensor([row.guided for row in rows], device=self.policy.device)
        plain_rows = [row.plain for row in rows]
        scores = self.scorer.score(self.policy, plain_rows, entropy=recipe.loss.entropy_coef > 0)
        in_context = recipe.loss.guided_ratio == "in_context" and bool(guided_N.any())
        sampled_rows = [row.sampled for row in rows]
        new_guided = self.scorer.score(self.policy, sampled_rows).logprobs_NT if in_context else None
        reference = self._reference_logprobs(plain_rows)
        new_NT, mask_NT = scores.logprobs_NT, scores.mask_NT
        for row, new_T in zip(rows, unpad(new_NT.detach(), plain_rows), strict=True):
            if row.old is None:
                row.old = new_T
            if row.old_plain is None:
                row.old_plain = new_T
            if ratios is not None:
                ratios.add(row.rollout, row.old_plain, row.old, recomputed=row.recomputed)
        logprobs = Logprobs(
            new_plain_NT=new_NT,
            old_NT=padded([row.old for row in rows], new_NT),
            old_plain_NT=padded([row.old_plain for row in rows], new_NT),
            new_guided_NT=new_guided,
        )
        loss, sums = policy_loss(
            logprobs,
            _advantages(rows, new_NT),
            guided_N,
            mask_NT,
            torch.tensor([row.weight for row in rows], device=new_NT.device),
            ref_NT=reference,
            entropies_NT=scores.entropies_NT,
            **{name: getattr(recipe.loss, name) for name in LOSS_SETTINGS},
        )
        loss.backward()
        return loss.detach(), sums

    def _reference_logprobs(self, rows: Sequence[Row]) -> Tensor | None:
        """log pi_ref under the plain prompt, where there is a reference policy."""
        if self.reference is None:
            return None
        with self.reference.active() as policy:
            return self.scorer.score(policy, rows).logprobs_NT

    def _refuse_non_finite(
        self,
        rows: Sequence[TrainRow],
        step: int,
        loss: float,
        norm: float,
        what: str = "The optimizer was not stepped",
    ) -> NoReturn:
        """Save the batch that made the loss, the gradient or the weights non-finite, and stop."""
        path = self.run.path / f"non_finite_step_{step:06d}.jsonl"
        lines = [asdict(row.rollout) | {"advantage": row.advantage, "weight": row.weight} for row in rows]
        path.write_text("".join(json.dumps(line, default=Tensor.tolist) + "\n" for line in lines), encoding="utf-8")
        raise NonFiniteLoss(
            f"step {step}: loss {loss}, gradient norm {norm}. {what}; the batch is in {path}. "
            f"Lower optimizer.learning_rate or raise optimizer.warmup_steps, then start a new run from the last "
            f"checkpoint (model.path: {self.run.latest_checkpoint() or self.recipe.model.path})"
        )


LOSS_SETTINGS = (
    "guided_ratio",
    "ratio_cap",
    "ratio_level",
    "clip_low",
    "clip_high",
    "clip_guided",
    "reshape",
    "reshape_as",
    "reshape_constant",
    "reshape_percentile",
    "beta",
    "kl_rows",
    "entropy_coef",
)
"""The fields of `LossConfig` that `policy_loss` takes."""


def _advantages(rows: Sequence[TrainRow], like_NT: Tensor) -> Tensor:
    """One number a row, [N], or one a token, [N, T]."""
    advantages = [row.advantage for row in rows]
    if isinstance(advantages[0], Tensor):
        return padded([torch.as_tensor(advantage) for advantage in advantages], like_NT)
    return torch.tensor(advantages, device=like_NT.device)


def _means(sums: LossSums) -> Metrics:
    """Sums over a mini-batch -> the means that are logged."""
    pairs = {
        "clip_fraction": (sums.clipped, sums.clippable),
        "kl": (sums.kl, sums.kl_tokens),
    }
    return {name: float(total) / float(count) for name, (total, count) in pairs.items() if count}
