"""The `reasoning_gym` grader: the verifier of the reasoning-gym data set that made the problem.

The problem's metadata holds `source_dataset`, the data set's name (`countdown`), and `entry`, an item of that data set
as reasoning-gym made it: its `question`, `answer` and `metadata`. The problem's own `answer` is the entry's, or any
text where the entry has none. The reward is the verifier's score between 0 and 1; correct means a score of 1.

Some verifiers call `eval` or sympy's `parse_expr`, which is `eval`, on the model's answer. Here the first read literals
only, and the others see arithmetic and elementary functions only; all else is wrong.
"""

import ast
import importlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from guide_rl.graders.answer_text import CORRECT, WRONG, answer_or_grade
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem

EVALUATING = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
"""Modules of reasoning-gym whose verifiers call `eval` on the answer."""
PARSING = ("countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration")
"""Data sets whose verifiers call sympy's `parse_expr` on the answer."""
_WITH_TUPLES = ("arc_agi", "rearc")

_FUNCTION = r"(?:a?(?:sin|cos|tan|cot|sec|csc)h?|exp|log|ln|sqrt|Abs|pi)"
_ALGEBRA = re.compile(
    rf"(?:[0-9\s+\-*/^(),]|(?<=[0-9])\.|\.(?=[0-9])|(?<![A-Za-z])(?:{_FUNCTION}|[A-Za-z])(?![A-Za-z]))+"
)

Verifier = Callable[[str, Mapping[str, Any]], float]


def check(problem: Problem) -> None:
    """Raise GraderSetupError unless the metadata names a data set and holds the entry."""
    name, entry = problem.metadata.get("source_dataset"), problem.metadata.get("entry")
    if not isinstance(name, str) or not isinstance(entry, Mapping) or not {"answer", "metadata"} <= set(entry):
        raise GraderSetupError(
            "grader reasoning_gym needs metadata with source_dataset (a name) and entry (question, answer and metadata, "
            "as reasoning-gym made them); add them or choose the grader math or exact"
        )


def quick_grade(problem: Problem, text: str) -> Grade | None:
    """Without an answer wrong, with the entry's own answer right, on which all verifiers agree; else None."""
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade):
        return answer
    return CORRECT if answer == problem.metadata["entry"]["answer"] else None


def thorough_grade(problem: Problem, text: str) -> Grade:
    """What the data set's verifier says.

    Raises:
        GraderSetupError: reasoning-gym has no data set of that name.
    """
    name, entry = problem.metadata["source_dataset"], problem.metadata["entry"]
    verify = _verifier(name)
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade):
        return answer
    if name in PARSING and not _ALGEBRA.fullmatch(answer):
        return WRONG
    score = float(verify(answer, _entry(name, entry)))
    return CORRECT if score >= 1 else Grade(max(0.0, score), False, "wrong")


def prepare() -> None:
    """Import reasoning-gym."""
    import reasoning_gym  # noqa: F401


def _entry(name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry as its verifier needs it: these two compare with tuples, which JSON turns into lists."""
    if name not in _WITH_TUPLES:
        return entry
    return {**entry, "metadata": {**entry["metadata"], "output": tuple(map(tuple, entry["metadata"]["output"]))}}


@cache
def _verifier(name: str) -> Verifier:
    """The data set's verifier."""
    import reasoning_gym

    for module in EVALUATING:
        vars(importlib.import_module(f"reasoning_gym.{module}"))["eval"] = ast.literal_eval
    try:
        return reasoning_gym.get_score_answer_fn(name)  # type: ignore[no-any-return]
    except ValueError:
        raise GraderSetupError(
            f"reasoning-gym {reasoning_gym.__version__} has no data set {name!r}; "
            "correct source_dataset in the problem's metadata"
        ) from None
