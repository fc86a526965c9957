"""The reference policy of the KL penalty: a frozen copy of the policy, or the model under its LoRA adapter."""

import contextlib
import copy
from typing import Any

import torch

from guide_rl.config import TrainRecipe
from guide_rl.policy import Policy


class Reference:
    """pi_ref: the policy as it was at the start, or at its last refresh.

    Without `loss.beta` there is none. With LoRA and no refresh it is the base model: the adapter is switched off,
    no copy is held.
    """

    def __init__(self, policy: Policy, copied: Policy | None, every: int | None) -> None:
        self._policy, self._copied, self._every = policy, copied, every

    @classmethod
    def of(cls, policy: Policy, recipe: TrainRecipe) -> "Reference | None":
        """The recipe's reference policy, or None when it has none."""
        if recipe.loss.beta == 0:
            return None
        adapter_only = recipe.model.lora is not None and recipe.loss.reference_every is None
        copied = None if adapter_only else Policy(_frozen(policy.model), policy.tokenizer)
        return cls(policy, copied, recipe.loss.reference_every)

    @contextlib.contextmanager
    def active(self) -> Any:
        """The policy to score with, without gradients."""
        with torch.no_grad():
            if self._copied is not None:
                yield self._copied
                return
            with self._policy.model.disable_adapter():
                yield self._policy

    def refresh(self, step: int) -> None:
        """Before a step: take the policy as the reference where the recipe says so (algorithm 1, line 3)."""
        if self._copied is not None and self._every and step > 1 and (step - 1) % self._every == 0:
            self._copied.model.load_state_dict(self._policy.model.state_dict())

    def state(self) -> dict[str, Any] | None:
        """Weights for a checkpoint; None where the base model serves."""
        return None if self._copied is None else self._copied.model.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take weights from a checkpoint."""
        if self._copied is not None and state is not None:
            self._copied.model.load_state_dict(state)


def _frozen(model: Any) -> Any:
    """A copy that is never trained."""
    return copy.deepcopy(model).requires_grad_(False).eval()
