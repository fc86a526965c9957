"""The problems that a run trains on and is evaluated on, checked before anything is spent."""

from collections.abc import Callable
from dataclasses import replace

from guide_rl import graders
from guide_rl.config import TrainRecipe
from guide_rl.problems import load_problems
from guide_rl.problems.points import POINTS
from guide_rl.prompts import Prompts
from guide_rl.trainers.engine import Engine
from guide_rl.types import Problem


def training_problems(recipe: TrainRecipe, engine: Engine, note: Callable[[str], None]) -> list[Problem]:
    """The training problems that fit the prompt limit of the recipe and the model; `note` gets the counts.

    Raises:
        ValueError: too few for a step, guidance that the recipe needs and no problem has, an unknown grader, or
            prompts that leave the model no room for a rollout.
    """
    path, trigger = recipe.problems.train, recipe.guidance.trigger
    problems, longest = _fitting(path, engine.prompt_ids.prompts, note, guided=trigger != "never")
    engine.check_length(longest, recipe.sampling.max_tokens)
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
    if recipe.guidance.ladder and not any(problem.metadata.get(POINTS) for problem in problems):
        raise ValueError(
            f"{path}: no problem has points of guidance (metadata.{POINTS}, which `guide guidance` writes), so guidance.ladder "
            "has nothing to climb; write guidance, or set it to false"
        )
    return problems


def held_out_problems(recipe: TrainRecipe, engine: Engine, note: Callable[[str], None]) -> list[Problem]:
    """The evaluation problems that fit, without guidance; none where the recipe evaluates nothing."""
    path, evaluation = recipe.problems.evaluation, recipe.evaluation
    if path is None or evaluation.every == 0:
        return []
    problems, longest = _fitting(path, engine.prompt_ids.prompts, note, guided=False)
    knob = "sampling.max_tokens" if evaluation.max_tokens is None else "evaluation.max_tokens"
    engine.check_length(longest, evaluation.max_tokens or recipe.sampling.max_tokens, knob=knob)
    return problems


def _fitting(path: str, prompts: Prompts, note: Callable[[str], None], *, guided: bool) -> tuple[list[Problem], int]:
    """Load a file, apply the prompt limit, check the graders, and say what was left out.

    Unless `guided`, guidance is dropped: nothing will read it, so nothing in it can be wrong.

    Returns:
        The problems, and the tokens of their longest prompt.
    """
    loaded = load_problems(path)
    problems, counts = prompts.fit(loaded if guided else [replace(problem, guidance=None) for problem in loaded])
    for problem in problems:
        try:
            graders.check(problem)
        except graders.GraderSetupError as error:
            raise graders.GraderSetupError(f"{path}, {error}") from error
    left_out = {
        "left out (prompt over prompts.max_tokens)": counts.too_long,
        "lost their guidance (guided prompt over prompts.max_tokens)": counts.guidance_too_long,
        "have no guidance": counts.without_guidance if guided else 0,
    }
    note(f"{path}: {counts.kept} problems" + "".join(f"; {count} {what}" for what, count in left_out.items() if count))
    return problems, counts.longest
