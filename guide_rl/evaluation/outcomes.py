"""What became of a rollout, in one word: wrong answers, cut-off ones and none at all are different findings."""

from typing import Literal

from guide_rl.types import Grade, Problem, Rollout

Outcome = Literal["correct", "wrong", "truncated", "ungradable", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "truncated", "ungradable", "empty")

FAILURES = ("timeout", "memory", "crashed")
"""Verdicts, besides `error: ...`, that say that a grader did not do its work."""


def grading_failed(problem: Problem, grade: Grade) -> bool:
    """Whether the grader judged nothing. Code that raises, or outlasts its limits, was judged: it is wrong."""
    if problem.grader == "unit_tests":
        return grade.verdict in ("crashed", "error: SandboxEndedError")
    return grade.verdict in FAILURES or grade.verdict.startswith("error")


def outcome(problem: Problem, rollout: Rollout, grade: Grade) -> Outcome:
    """The first that holds: correct, truncated (cut off by the length limit), empty (no text), ungradable, wrong."""
    if grade.correct:
        return "correct"
    if rollout.finish == "length":
        return "truncated"
    if not rollout.text.strip():
        return "empty"
    return "ungradable" if grade.verdict == "no answer" or grading_failed(problem, grade) else "wrong"
