"""Graders: (problem, text) -> Grade. Model text is hostile: it grades as wrong, it never raises.

A grader of ours is two functions: a quick one, for the calling process, that decides most texts without heavy
imports, and a thorough one, for a worker process with hard limits (`graders.pool`), that decides the rest. A problem
names its grader: a key of `GRADERS`, or `package.module:function` for one of the user's own (`graders.user_function`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from guide_rl.graders import choice, exact_answer, math_answer, procedural, quantity, unit_tests, user_function
from guide_rl.graders.answer_text import final_answer
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem

GradeFunction = Callable[[Problem, str], Grade]


def _marked(problem: Problem) -> str | None:
    """The answer in a box, or where its braces do not match in a tag."""
    boxed = f"\\boxed{{{problem.answer}}}"
    return boxed if final_answer(boxed) == problem.answer.strip() else f"<answer>{problem.answer}</answer>"


def _accept(problem: Problem) -> None:
    """Most graders need nothing of a problem but its answer."""


@dataclass(frozen=True)
class BuiltIn:
    """A grader of ours."""

    quick: Callable[[Problem, str], Grade | None]
    """Decides what it can at once, else None; imports nothing heavy."""
    thorough: GradeFunction
    """Decides everything, maybe slowly, maybe without end."""
    prepare: Callable[[], object] = lambda: None
    """What makes the first call of `thorough` slow (imports, tables); workers run it before the clock starts."""
    check: Callable[[Problem], None] = _accept
    """Raises GraderSetupError when the problem lacks what this grader needs."""
    reference: Callable[[Problem], str | None] = _marked
    """A text whose final answer is the problem's own; None where that decides nothing."""


GRADERS: dict[str, BuiltIn] = {
    "choice": BuiltIn(choice.grade, choice.grade, check=choice.check),
    "exact": BuiltIn(exact_answer.grade, exact_answer.grade),
    "math": BuiltIn(math_answer.quick_grade, math_answer.thorough_grade, math_answer.prepare),
    "quantity": BuiltIn(quantity.quick_grade, quantity.thorough_grade, quantity.prepare, quantity.check),
    "reasoning_gym": BuiltIn(procedural.quick_grade, procedural.thorough_grade, procedural.prepare, procedural.check),
    "unit_tests": BuiltIn(
        unit_tests.quick_grade, unit_tests.thorough_grade, unit_tests.prepare, unit_tests.check, unit_tests.reference
    ),
}
"""The graders by name."""


@cache
def resolve(name: str) -> GradeFunction:
    """The grader of that name as one function, without limits on time and memory.

    Raises:
        GraderSetupError: unknown name, or the user's function cannot be imported; says what to do.
    """
    if name in GRADERS:
        quick, thorough = GRADERS[name].quick, GRADERS[name].thorough
        return lambda problem, text: quick(problem, text) or thorough(problem, text)
    if ":" not in name:
        known = ", ".join(sorted(GRADERS))
        raise GraderSetupError(
            f"unknown grader {name!r}; use one of {known}, or name your own function as package.module:function"
        )
    function = user_function.load(name)
    return lambda problem, text: user_function.as_grade(function(problem, text))


def check(problem: Problem) -> None:
    """Raise GraderSetupError, which names the problem, when its grader does not exist or it lacks what that needs."""
    try:
        resolve(problem.grader)
        if problem.grader in GRADERS:
            GRADERS[problem.grader].check(problem)
    except GraderSetupError as error:
        raise GraderSetupError(f"problem {problem.id!r}: {error}") from error


def quick_grade(problem: Problem, text: str) -> Grade | None:
    """The grade where it can be had at once and without danger, else None; the user's functions never run here."""
    return GRADERS[problem.grader].quick(problem, text) if problem.grader in GRADERS else None


def thorough_grader(name: str) -> GradeFunction:
    """The function that decides what `quick_grade` left open; GraderSetupError as in `resolve`."""
    return GRADERS[name].thorough if name in GRADERS else resolve(name)
