"""Guide: reinforcement learning of reasoning models with guidance on failure.

Guide-GRPO of "Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models" (arXiv 2506.13923). The public
names are those listed here, and the modules that README names; importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from guide_rl.config import SFTRecipe, TrainRecipe
from guide_rl.problems import load_problems, save_problems
from guide_rl.recipes import read_recipe
from guide_rl.types import Grade, Group, Problem, Request, Rollout

if TYPE_CHECKING:
    from guide_rl.run_folder import RunFolder

__version__ = "0.1.0"

__all__ = [
    "Grade",
    "Group",
    "Problem",
    "Request",
    "Rollout",
    "SFTRecipe",
    "TrainRecipe",
    "__version__",
    "load_problems",
    "read_recipe",
    "save_problems",
    "train",
]


def train(recipe: TrainRecipe, *, resume: str | None = None) -> "RunFolder":
    """Run a recipe, or continue the run in folder `resume` with the same recipe: see `trainers.trainer.train`."""
    from guide_rl.trainers import trainer

    return trainer.train(recipe, resume=resume)
