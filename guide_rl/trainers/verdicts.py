"""What the verdicts of a step say about the grader and the problems."""

from collections import Counter
from collections.abc import Sequence

from guide_rl.evaluation.outcomes import grading_failed
from guide_rl.metrics import Metrics
from guide_rl.types import Group


def refuse_failing_grader(groups: Sequence[Group]) -> None:
    """Raise ValueError where every grade of a step is a failure of the grader: it would teach nothing."""
    grades = [(g.problem, grade) for g in groups for grade in g.grades if grade.verdict != "truncated"]
    failed = [grade.verdict for problem, grade in grades if grading_failed(problem, grade)]
    if failed and len(failed) == len(grades):
        counts = ", ".join(f"{count} x {verdict}" for verdict, count in Counter(failed).most_common())
        raise ValueError(
            f"grading failed on every rollout of a step ({counts}), so there is nothing to learn from. Correct the "
            "grader (one that returns False or 0 for a wrong answer, and never raises), or raise grading.timeout_s "
            "or grading.memory_mb"
        )


def why_no_gradient(metrics: Metrics) -> str:
    """How the rollouts of a step without gradient were graded, and where to look."""
    grades = {key.removeprefix("grades/"): int(n) for key, n in metrics.items() if key.startswith("grades/")}
    verdicts = {name: n for name, n in grades.items() if "/" not in name}  # Others are of one grader.
    counts = ", ".join(f"{n} {name}" for name, n in sorted(verdicts.items(), key=lambda item: -item[1]))
    return (
        f"within every group all rewards are equal ({counts}). If that stays so, read rollouts.jsonl: does the answer stand "
        "where the grader looks (docs/problems.md), is sampling.max_tokens too small, are the problems too hard or too easy?"
    )
