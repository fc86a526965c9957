"""What the training loop asks of an engine, and what an update tells.

An engine samples rollouts from the policy, moves the policy by a step's groups, and saves it. What to sample, whom to guide,
how to grade, when to evaluate and to save is the loop's (`trainers.trainer`), the same for every engine.
"""

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from guide_rl.config import TrainRecipe
from guide_rl.metrics import Metrics
from guide_rl.prompts import PromptIds
from guide_rl.run_folder import RunFolder
from guide_rl.types import Group, RolloutKey, Sampler


class NonFiniteLoss(FloatingPointError):
    """The loss, the gradient or what the optimizer made of the weights is NaN or infinite; nothing of the step is saved."""


class EngineLost(ConnectionError):
    """A process that the engine needs has died: the step is lost, and nothing can be saved any more."""


@dataclass(frozen=True)
class Updated:
    """What the update of a step says."""

    metrics: Metrics
    """Loss, gradient norm, clip fraction, ratios of guided rollouts, mismatch of the sampler."""
    advantages: dict[RolloutKey, float]
    """The advantages of the rollouts that the loss counts; the mean over its tokens where a critic gives them."""
    ratios: dict[RolloutKey, list[float]]
    """The importance ratio of every guided rollout, token by token: before the update, or, with the sampler's old log-probs, at
    the rollout's first pass in it."""
    timings: Metrics = field(default_factory=dict)
    """Seconds of its parts, where the engine knows them."""


class Engine(Protocol):
    """Executes training. Made of (recipe, run, checkpoint), it knows tokenizer and length limits; `start` does the rest.

    A context manager: on leaving, its processes end.
    """

    tokenizer: Any
    prompt_ids: PromptIds
    """(problem, guided) -> the prompt's token ids."""

    def check_length(self, prompt_tokens: int, max_tokens: int, *, knob: str = "sampling.max_tokens") -> None:
        """Raise ValueError when a prompt of so many tokens leaves less room than `max_tokens`, which `knob` sets."""
        ...

    def start(self) -> None:
        """Make ready to sample and to update, in the state of the checkpoint, where there is one."""
        ...

    def sampler(self, temperature: float, max_tokens: int, *, top_p: float = 1.0, top_k: int = 0) -> Sampler:
        """An idle sampler of the policy as it is."""
        ...

    def sampling(self) -> AbstractContextManager[None]:
        """The context in which samplers work."""
        ...

    def update(self, groups: Sequence[Group], step: int) -> Updated:
        """`optimizer.epochs` passes over the mini-batches of a step's groups.

        Raises:
            NonFiniteLoss, MemoryError: what went wrong, and which knob to turn.
            EngineLost: a process has died.
        """
        ...

    def save(self, folder: Path) -> None:
        """Fill a checkpoint folder."""
        ...

    def export(self, folder: Path) -> None:
        """Write the policy as one folder in Hugging Face format."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


ENGINES = {
    "local": ("guide_rl.trainers.local", "LocalEngine"),
    "verl": ("guide_rl.trainers.verl.engine", "VerlEngine"),
}
"""The engines: name -> module and class, imported when asked for."""


def engine_of(recipe: TrainRecipe, run: RunFolder, checkpoint: Path | None) -> Engine:
    """The engine that a recipe names."""
    module, name = ENGINES[recipe.engine]
    engine: Engine = getattr(importlib.import_module(module), name)(recipe, run, checkpoint)
    return engine
