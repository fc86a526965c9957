"""How much guidance: the levels of a ladder, and the share of problems that get any. No torch."""

import random
from collections.abc import Mapping

from guide_rl.problems.points import POINTS, guidance_at
from guide_rl.types import Problem, Rollout


def guided_share(step: int, *, dropout: float, anneal_steps: int | None) -> float:
    """The share of triggered problems that get their guidance: (1 - dropout), falling linearly to 0 over `anneal_steps`."""
    left = 1.0 if anneal_steps is None else max(0.0, 1 - (step - 1) / anneal_steps)
    return (1 - dropout) * left


def spared(problem: Problem, share: float, seed: tuple[int, ...]) -> bool:
    """Whether chance takes this problem's guidance away in this step, where only a share gets it."""
    return share < 1 and random.Random(repr((seed, problem.id))).random() >= share


class Ladder:
    """Which level of guidance each problem is at: the weakest first, one stronger after each failure, remembered.

    A level is the number of points of the guidance that are shown (`problems.points`). Not active, every problem has the
    guidance that it came with. `left` are the rollouts of levels that failed: sampled, and in no group.
    """

    def __init__(self, *, active: bool, reached: Mapping[str, int] | None = None) -> None:
        self.active, self.reached = active, dict(reached or {})
        self.left: list[Rollout] = []

    def level(self, problem: Problem) -> int:
        """The level that the problem is at, from 1."""
        return self.reached.get(problem.id, 1)

    def at_level(self, problem: Problem) -> Problem:
        """The problem with the guidance of its level."""
        if not self.active or not problem.metadata.get(POINTS):
            return problem
        return guidance_at(problem, self.level(problem))

    def climb(self, problem: Problem) -> bool:
        """Go one level up; False at the top, where the problem stays."""
        if not self.active or self.level(problem) >= len(problem.metadata.get(POINTS, ())):
            return False
        self.reached[problem.id] = self.level(problem) + 1
        return True
