"""The local engine: one process, one device, plain PyTorch over transformers models."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import torch

from guide_rl.config import TrainRecipe
from guide_rl.policy import autocast, explain_out_of_memory, export, load_policy, pick_device, save
from guide_rl.prompts import PromptIds, Prompts
from guide_rl.run_folder import RunFolder
from guide_rl.samplers.causal_lm import CausalLM
from guide_rl.samplers.transformers import TransformersSampler
from guide_rl.trainers.engine import Updated
from guide_rl.trainers.update import PolicyUpdate
from guide_rl.types import Group


class LocalEngine:
    """Samples and updates in this process; see `trainers.engine.Engine`.

    Raises:
        ValueError, OSError: the model is not there or cannot be trained (the message says why).
    """

    def __init__(self, recipe: TrainRecipe, run: RunFolder, checkpoint: Path | None) -> None:
        self.recipe, self.run, self.checkpoint = recipe, run, checkpoint
        device = pick_device(recipe.model)
        self.policy = load_policy(recipe.model, device=device, seed=recipe.seed, checkpoint=checkpoint)
        self.tokenizer = self.policy.tokenizer
        self.prompt_ids = PromptIds(Prompts(self.tokenizer, recipe.prompts))
        self.check_length = CausalLM(self.policy.model).check_length

    def start(self) -> None:
        """Make the optimizer, the critic and the reference policy, or take theirs from the checkpoint."""
        self.policy.model.train(self.recipe.model.gradient_checkpointing)
        self.policy_update = PolicyUpdate(self.recipe, self.policy, self.sampling, self.prompt_ids, self.run)
        if self.checkpoint is not None:
            state = torch.load(self.checkpoint / "trainer.pt", map_location=self.policy.device, weights_only=True)
            self.policy_update.restore(state)

    def sampler(
        self, temperature: float, max_tokens: int, *, top_p: float = 1.0, top_k: int = 0
    ) -> TransformersSampler:
        """A sampler over the policy being trained."""
        sampling = self.recipe.sampling
        with explain_out_of_memory("sampling.batch_size or sampling.max_tokens"):
            return TransformersSampler(
                model=self.policy.model,
                tokenizer=self.tokenizer,
                temperature=temperature,
                max_tokens=max_tokens,
                top_p=top_p,
                top_k=top_k,
                stop=sampling.stop,
                batch_size=sampling.batch_size,
            )

    def sampling(self) -> AbstractContextManager[None]:
        """Matrix products in the recipe's precision."""
        return autocast(self.recipe.model, self.policy.device)

    def update(self, groups: Sequence[Group], step: int) -> Updated:
        """Move the policy: see `trainers.update`."""
        return self.policy_update(groups, step)

    def save(self, folder: Path) -> None:
        """Model and tokenizer in Hugging Face format, and trainer.pt with the state of the update."""
        save(self.policy.model, self.tokenizer, folder)
        torch.save(self.policy_update.state(), folder / "trainer.pt")

    def export(self, folder: Path) -> None:
        """The model with LoRA merged."""
        export(self.policy.model, self.tokenizer, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
