"""The `exact` grader: the final answer is the reference answer, but for typography."""

from guide_rl.graders.answer_text import CORRECT, WRONG, answer_or_grade, plain
from guide_rl.types import Grade, Problem


def grade(problem: Problem, text: str) -> Grade:
    """Correct when `plain` spells the final answer and the reference answer alike."""
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade):
        return answer
    return CORRECT if plain(answer) == plain(problem.answer) else WRONG
