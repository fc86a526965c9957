"""The problems that a run trains on and is evaluated on, checked before anything is spent."""

from collections.abc import Callable

from guide_rl import graders
from guide_rl.config import TrainRecipe
from guide_rl.problems import load_problems
from guide_rl.prompts import Prompts
from guide_rl.types import Problem


def training_problems(recipe: TrainRecipe, prompts: Prompts, note: Callable[[str], None]) -> list[Problem]:
    """The training problems that fit the prompt limit; `note` gets the counts.

    Raises:
        ValueError: too few for a step, guidance that the recipe needs and no problem has, or an unknown grader.
    """
    path, trigger = recipe.problems.train, recipe.guidance.trigger
    problems = _fitting(path, prompts, note, needs_guidance=trigger != "never")
    if len(problems) < recipe.problems_per_step:
        raise ValueError(
            f"problems_per_step is {recipe.problems_per_step} but {path} has only {len(problems)} problems that fit; "
            "lower problems_per_step or add problems"
        )
    without = [problem.id for problem in problems if problem.guidance is None]
    if without and recipe.problems.require_guidance:
        raise ValueError(
            f"{path}: {len(without)} problems have no guidance (the first is {without[0]!r}) and "
            "problems.require_guidance is true; write guidance for them or set it to false"
        )
    if len(without) == len(problems) and trigger != "never":
        raise ValueError(
            f"{path}: no problem has guidance, so guidance.trigger {trigger} could never fire; add guidance or set "
            "guidance.trigger to never"
        )
    return problems


def held_out_problems(recipe: TrainRecipe, prompts: Prompts, note: Callable[[str], None]) -> list[Problem]:
    """The evaluation problems that fit; none where the recipe names no file."""
    path = recipe.problems.evaluation
    return [] if path is None else _fitting(path, prompts, note, needs_guidance=False)


def _fitting(path: str, prompts: Prompts, note: Callable[[str], None], *, needs_guidance: bool) -> list[Problem]:
    """Load a file, apply the prompt limit, check the graders, and say what was left out."""
    problems, counts = prompts.fit(load_problems(path))
    for problem in problems:
        graders.check(problem)
    left_out = {
        "left out (prompt over prompts.max_tokens)": counts.too_long,
        "lost their guidance (guided prompt over prompts.max_tokens)": counts.guidance_too_long,
        "have no guidance": counts.without_guidance if needs_guidance else 0,
    }
    note(f"{path}: {counts.kept} problems" + "".join(f"; {count} {what}" for what, count in left_out.items() if count))
    return problems
