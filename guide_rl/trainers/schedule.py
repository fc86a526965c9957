"""The learning rate of a step."""

import math
from collections.abc import Callable

from guide_rl.config import TrainRecipe


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """The learning rate of a step: a linear rise over the warm-up, then the schedule's fall to 0 after the last."""
    config = recipe.optimizer
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - 1 - config.warmup_steps) / max(1, recipe.steps - config.warmup_steps)
    return config.learning_rate * SCHEDULES[config.schedule](done)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Share of the steps after the warm-up that is done -> share of the peak learning rate."""
