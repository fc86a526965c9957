"""The critic of PPO and Guide-PPO (algorithm 3): values of plain prompts, fitted to returns.

Guided rollouts are valued under the PLAIN prompt, too: what the policy is to learn is to solve the problem without guidance.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guide_rl.config import CriticConfig, TrainRecipe
from guide_rl.equations.advantages import gae, whiten
from guide_rl.equations.losses import value_loss_NT
from guide_rl.logprobs import Row, Scorer, padded, unpad
from guide_rl.metrics import Metrics
from guide_rl.policy import Policy
from guide_rl.trainers.minibatches import TrainRow


class Critic:
    """V(plain prompt, tokens so far), with its optimizer.

    The value before a token is a linear function (started at 0) of the hidden state from which the policy's head would predict
    that token. The layers below are a copy of the policy's, or the policy's own (`critic.backbone`).

    Args:
        recipe: its `critic` section, and the optimizer's.
        policy: what is trained.
        scorer: runs the layers.
    """

    def __init__(self, recipe: TrainRecipe, policy: Policy, scorer: Scorer) -> None:
        self.config, self.scorer = recipe.critic, scorer
        self.shared = self.config.backbone == "shared"
        self.policy = policy if self.shared else Policy(copy.deepcopy(policy.model), policy.tokenizer)
        width = int(policy.head.weight.shape[1])
        self.head = nn.Linear(width, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.parameters = list(self.head.parameters())
        if not self.shared:
            output = {id(parameter) for parameter in self.policy.head.parameters()}
            inputs = {id(parameter) for parameter in self.policy.causal.get_input_embeddings().parameters()}
            layers = [p for p in self.policy.model.parameters() if p.requires_grad and id(p) not in output - inputs]
            self.parameters += layers
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.config.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.max_grad_norm = recipe.optimizer.max_grad_norm

    def values(self, rows: Sequence[Row], *, train_layers: bool = True) -> tuple[Tensor, Tensor]:
        """The value before each token, and which are real: [N, T] float32 and bool."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and train_layers):
            hidden_NTD, mask_NT = self.scorer.hidden(self.policy, rows)
        values_NT = (hidden_NTD.float() * self.head.weight[0]).sum(-1) + self.head.bias  # a product would be autocast
        return torch.where(mask_NT, values_NT, 0.0), mask_NT

    def judge(self, rows: Sequence[TrainRow]) -> Metrics:
        """Fill values, returns and advantages of all rows of a step, before anything moves; see `fill_advantages`."""
        plain = [row.plain for row in rows]
        with torch.no_grad():
            for part in self.scorer.microbatches(plain):
                some = [plain[i] for i in part]
                for i, values_T in zip(part, unpad(self.values(some)[0], some), strict=True):
                    rows[i].values = values_T
        return fill_advantages(rows, self.config)

    def step(self, rows: Sequence[TrainRow], *, warming_up: bool = False) -> Metrics:
        """One optimizer step of the critic's own parameters over the rows of a mini-batch (mean over their tokens).

        Where the backbone is shared, its gradient of `coef` times the value loss is added to what the policy's optimizer
        will use; the caller steps that one. While warming up such layers get none: the policy does not move.
        """
        rows = [row for row in rows if self.config.rows == "all" or not row.guided]
        if not rows:
            return {}
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        tokens = sum(len(row.plain.token_ids) for row in rows)
        total = clipped = 0.0
        for part in self.scorer.microbatches([row.plain for row in rows]):
            some = [rows[i] for i in part]
            new_NT, mask_NT = self.values([row.plain for row in some], train_layers=not (self.shared and warming_up))
            old_NT, returns_NT = (
                padded([getattr(row, name) for row in some], new_NT) for name in ("values", "returns")
            )
            losses_NT = torch.where(mask_NT, value_loss_NT(new_NT, old_NT, returns_NT, self.config.clip), 0.0)
            loss = losses_NT.sum() / tokens
            (loss * self.config.coef if self.shared else loss).backward()
            total += loss.item()
            free_NT = value_loss_NT(new_NT, old_NT, returns_NT, None)
            clipped += ((losses_NT > free_NT) & mask_NT).sum().item() / tokens
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the critic's loss ({total}) or gradient ({norm.item()}) is not finite; lower critic.learning_rate"
            )
        self.optimizer.step()
        if not torch.isfinite(torch.nn.utils.get_total_norm(self.parameters)):
            raise FloatingPointError("the critic's weights are no longer finite; lower critic.learning_rate")
        return {"critic/loss": total, "critic/clip_fraction": clipped, "critic/grad_norm": norm.item()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])


def fill_advantages(rows: Sequence[TrainRow], config: CriticConfig) -> Metrics:
    """Returns and advantages of all rows of a step, from their rewards and values.

    Returns:
        Mean value, and explained variance 1 - Var(R - V) / Var(R) over all tokens (left out where all returns are equal).
    """
    advantages = []
    for row in rows:
        assert row.values is not None
        advantages.append(gae(row.reward, row.values, gamma=config.gamma, lam=config.lam))
        row.returns = advantages[-1] + row.values
    for row, advantages_T in zip(rows, whiten(advantages) if config.whiten else advantages, strict=True):
        row.advantage = advantages_T
    values, returns = (torch.cat([getattr(row, name) for row in rows]).double() for name in ("values", "returns"))
    metrics = {"critic/value": values.mean().item()}
    if returns.numel() > 1 and (variance := returns.var().item()) > 0:
        metrics["critic/explained_variance"] = 1 - (returns - values).var().item() / variance
    return metrics
