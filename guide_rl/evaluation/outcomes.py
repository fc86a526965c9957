"""What became of a rollout, in one word: wrong answers, cut-off ones and none at all are different findings."""

from typing import Literal

from guide_rl.types import Grade, Rollout

Outcome = Literal["correct", "wrong", "truncated", "ungradable", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "truncated", "ungradable", "empty")

UNGRADABLE = ("no answer", "timeout", "memory", "crashed")
"""Verdicts, besides `error: ...`, that judge no answer: none was found, or the grader did not get to its end."""


def outcome(rollout: Rollout, grade: Grade) -> Outcome:
    """The first that holds: correct, truncated (cut off by the length limit), empty (no text), ungradable, wrong."""
    if grade.correct:
        return "correct"
    if rollout.finish == "length":
        return "truncated"
    if not rollout.text.strip():
        return "empty"
    return "ungradable" if grade.verdict in UNGRADABLE or grade.verdict.startswith("error") else "wrong"
