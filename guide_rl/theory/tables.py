"""The numbers of docs/theory.md: `python -m guide_rl.theory.tables docs/theory.md` writes its tables anew."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from math import log
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from guide_rl.theory.world import World, coefficients, expected_update, guided_advantage, patterns

Rows = Sequence[Sequence[str | float]]
METHODS = {
    "GRPO": ("never", "sequence", "sampling"),
    "Guide, sequence-level ratio (13)": ("all_incorrect", "sequence", "sampling"),
    "Guide, token-level ratio (6)": ("all_incorrect", "token", "sampling"),
    "Guide, no ratio (32)": ("all_incorrect", "token", "none"),
}
"""Trigger, ratio level and guided ratio of what the tables compare."""
GRPO, *GUIDES = METHODS.values()


def route(tokens: Sequence[int], chance: float) -> list[list[float]]:
    """Probabilities [4, 3] of a policy that goes on along `tokens` with `chance`; off the route it is uniform."""
    table = [[1 / 3] * 3 for _ in range(4)]
    for before, after in zip((3, *tokens), tokens, strict=False):
        table[before][after] = chance
        table[before][(after + 1) % 3], table[before][(after + 2) % 3] = (1 - chance) * 2 / 3, (1 - chance) / 3
    return table


@cache
def three_problems(chance: float = 0.2) -> World:
    """Answers 012, 120, and whatever ends in 20; the first has p = chance ** 3."""
    routes = ((0, 1, 2), (1, 2, 0), (1, 2, 0))
    plain, guided = (list(map(route, routes, chances)) for chances in ((chance, 0.4, 0.3), (0.85, 0.7, 0.8)))
    return World.of(plain, guided, ["012", "120", ".20"], length=3, k=4)


def opposed() -> World:
    """Two problems of one token with opposite answers."""
    plain, guided = ([[[0.5, 0.5]] * 2 + [[p, 1 - p]] for p in chances] for chances in ((0.02, 0.6), (0.6, 0.4)))
    return World.of(plain, guided, ["0", "1"], length=1, k=8)


def another_way() -> World:
    """One problem: plain rollouts solve it by 11, guided ones by 01, and plain ones hardly ever go on from 0 to 1."""
    plain, guided = [[0.99, 0.01], [0.8, 0.2], [0.5, 0.5]], [[0.05, 0.95], [0.99, 0.01], [0.5, 0.5]]
    return World.of([plain], [guided], [".1"], length=2, k=4)


@cache
def update(world: World, q: int, trigger: str, level: str, guided_ratio: str) -> Tensor:
    """The expected update of problem q."""
    return expected_update(world, q, trigger, level, guided_ratio=guided_ratio)


def gain(world: World, q: int, *method: str) -> float:
    """First-order gain, divided by eta, in problem q's p by its own expected update."""
    return float(update(world, q, *method) @ world.success_gradient(q))


def total_gain(world: World, *method: str) -> float:
    """The same summed over problems, each moved by the updates of all."""
    return sum(
        float(update(world, q, *method) @ world.success_gradient(o)) for q in world.problems for o in world.problems
    )


def success(world: World, q: int) -> list[float]:
    """Equations 10, 30 and 31: p, p~, the trigger's chance, ||grad p||^2, and the errors of the two equations."""
    p, gradient, right = float(world.success(q)), world.success_gradient(q), world.correct_PN[q]
    scores = world.scores(q, False)[right, 0]
    single = min(error(p * score, gradient) for score in scores)
    shown = [p, float(world.success(q, True)), (1 - p) ** world.k, norm2(gradient)]
    return [*shown, error(world.chances(q)[right] @ scores, gradient), single]


def lemma_1(world: World, q: int) -> list[float]:
    """Equation 16: cosines and mean error over guided rollouts; then the errors of what importance sampling gives."""
    plain, guided, chances = world.scores(q, False)[:, 0], world.scores(q, True)[:, 0], world.chances(q, True)
    cosines, ratios = cosine_similarity(plain, guided, 1), world.chances(q) / chances
    misses = (guided - ratios[:, None] * plain).norm(dim=1) / guided.norm(dim=1)
    shown = [float(cosines.min()), float(chances @ cosines), float(chances @ misses)]
    for level in ("sequence", "token"):
        ratio = (world.logprobs(q, False, level) - world.logprobs(q, True, level)).exp()
        mean = torch.einsum("n,nt,ntd->d", chances * world.correct_PN[q], ratio, world.scores(q, False, level))
        shown.append(error(mean, world.success_gradient(q)))
    return shown


def groups() -> Rows:
    """Advantages in groups of k = 4 whose plain rollouts all failed."""
    rows = []
    for pattern in [*patterns(0.5, 0.5, 4, "never"), *patterns(0.5, 0.5, 4, "all_incorrect")]:
        if pattern.failed:
            rewards, advantages = pattern.rewards_G[pattern.guided_G], pattern.advantages_G[pattern.guided_G]
            parts = (advantages[rewards == 1], advantages[rewards == 0], advantages)
            means = [float(part.mean()) if len(part) else "" for part in parts]
            rows.append([str(len(rewards)), str(int(rewards.sum())), float(pattern.advantages_G[0]), *means])
    return rows


def law(world: World, q: int) -> list[float]:
    """c of GRPO and of Guide by parts, and the distance of the loss's expected gradient from c grad p."""
    vanilla, guide = sum(coefficients(world, q, "never")), coefficients(world, q, "all_incorrect")
    wanted = [c * world.success_gradient(q) for c in (vanilla, *[sum(guide)] * 3)]
    errors = [error(update(world, q, *method), right) for method, right in zip(METHODS.values(), wanted, strict=True)]
    return [vanilla, guide[1], guide[2], sum(guide), *errors]


def gains() -> Rows:
    """Own terms, terms across problems, their sum, and what real steps of eta = 0.01 and 0.001 do, divided by eta."""
    world = three_problems()
    rows: list[list[str | float]] = []
    for name, method in METHODS.items():
        own, total = sum(gain(world, q, *method) for q in world.problems), total_gain(world, *method)
        step = torch.stack([update(world, q, *method) for q in world.problems]).sum(0).reshape(world.theta.shape)
        real = []
        for eta in (0.01, 0.001):
            moved = replace(world, theta=world.theta + eta * step)
            real.append(sum(float(moved.success(q) - world.success(q)) for q in world.problems) / eta)
        rows.append([name, own, total - own, total, *real])
    return rows


def guided_term(world: World, q: int) -> list[float]:
    """E[A~] and E[w A~], what guidance adds to the gain as equations 9 and 37 print it, and exactly."""
    p, likeliest = float(world.success(q)), (world.chances(q) * world.correct_PN[q]).argmax()
    advantages = [guided_advantage(world, q, failed=True, weighted=weighted) for weighted in (False, True)]
    printed = (1 - p) ** world.k * advantages[0] * p
    exact = [gain(world, q, *method) - gain(world, q, *GRPO) for method in GUIDES]
    return [*advantages, printed, printed * norm2(world.scores(q, False)[likeliest, 0]), *exact]


def orders() -> Rows:
    """d log(gain) / d log(p) at p = 1e-9, as problem 0 gets harder under the plain prompt alone."""
    easier, harder = three_problems(1e-3), three_problems(0.9e-3)

    def exponent(method: tuple[str, str, str]) -> float:
        base = [0.0 if method == GRPO else gain(world, 0, *GRPO) for world in (harder, easier)]
        return log((gain(harder, 0, *method) - base[0]) / (gain(easier, 0, *method) - base[1])) / (3 * log(0.9))

    return [[name, "2" if name == "GRPO" else "1", "1", exponent(method)] for name, method in METHODS.items()]


def lemma_2(world: World, q: int) -> list[float]:
    """Equations 18, 19, 21 less 22, 23; the exact difference at both levels; gain per rollout at token level."""
    solved = 1 - (1 - float(world.success(q))) ** world.k
    fail, beside = (guided_advantage(world, q, failed=failed) for failed in (True, False))
    printed = [-solved * advantage * float(world.success(q)) for advantage in (beside, fail - beside)]
    selective, always = (
        [gain(world, q, trigger, level, "sampling") for level in ("sequence", "token")]
        for trigger in ("all_incorrect", "always")
    )
    per_rollout = [selective[1] / (world.k * (2 - solved)), always[1] / (2 * world.k)]
    return [fail, beside, *printed, selective[0] - always[0], selective[1] - always[1], *per_rollout]


def counterexamples() -> Rows:
    """Worlds in which every E[A~] is positive and Guide's gain can be the smaller: p, p~, E[A~], gains."""
    rows: list[list[str | float]] = []
    for name, world in (("opposed", opposed()), ("another way", another_way())):
        each = [
            (world.success(q), world.success(q, True), guided_advantage(world, q, failed=True)) for q in world.problems
        ]
        shown = [", ".join(shorten(float(number)) for number in column) for column in zip(*each, strict=True)]
        rows.append([name, *shown, *(total_gain(world, *method) for method in METHODS.values())])
    return rows


def by_problem(numbers: Callable[[World, int], list[float]]) -> Rows:
    """A line for each of the three problems."""
    return [[str(q), *numbers(three_problems(), q)] for q in three_problems().problems]


TABLES: dict[str, Callable[[], Rows]] = {
    "success": partial(by_problem, success),
    "lemma 1": partial(by_problem, lemma_1),
    "groups": groups,
    "law": partial(by_problem, law),
    "gains": gains,
    "guided term": partial(by_problem, guided_term),
    "orders": orders,
    "lemma 2": partial(by_problem, lemma_2),
    "counterexamples": counterexamples,
}
"""What stands below the heads of the page's tables."""


def norm2(vector: Tensor) -> float:
    """Squared Euclidean norm."""
    return float(vector @ vector)


def error(found: Tensor, true: Tensor) -> float:
    """Length of the difference over that of `true`."""
    return float((found - true).norm() / true.norm())


def shorten(cell: str | float) -> str:
    """Three significant digits; rounding noise is 0."""
    return cell if isinstance(cell, str) else "0" if abs(cell) < 1e-12 else f"{cell:.3g}"


def fill(text: str, name: str, rows: Rows) -> str:
    """The page with these rows below the head of the table that follows its line `<!-- table NAME -->`."""
    body = "".join("| " + " | ".join(map(shorten, row)) + " |\n" for row in rows)
    pattern = rf"(?<=<!-- table {name} -->\n)(\|.*\n\|[-|]+\n)(?:\|.*\n)*"
    filled, count = re.subn(pattern, lambda found: found[1] + body, text)
    if count != 1:
        raise ValueError(f"the page needs one line <!-- table {name} --> with the table's head and its dashes below")
    return filled


if __name__ == "__main__":
    page = Path(sys.argv[1])
    for table, make in TABLES.items():
        page.write_text(fill(page.read_text(), table, make()))
