"""Groups -> the numbers of a step. No torch; docs/metrics.md explains every key."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from guide_rl.types import Grade, Group, Rollout

Metrics = dict[str, float]


def group_metrics(groups: Sequence[Group], left: Sequence[Rollout] = ()) -> Metrics:
    """What sampling and grading say of a step, counted over all groups and rollouts, trained or not.

    Args:
        groups: every group of the step, with all its rollouts.
        left: rollouts that were sampled and are in no group (a ladder's failures): what they cost counts, and nothing else.

    Returns:
        Metrics; a mean over nothing (say, guided accuracy when nothing was guided) is left out.
    """
    plain = [pair for group in groups for pair in _pairs(group) if not pair[0].guided]
    guided = [pair for group in groups for pair in _pairs(group) if pair[0].guided]
    triggered = [group for group in groups if group.triggered]
    rescued = [group for group in triggered if _rescued(group)]
    metrics: dict[str, float | None] = {
        "reward": _mean(grade.reward for _, grade in plain + guided),
        "accuracy/plain": _mean(grade.correct for _, grade in plain),
        "accuracy/guided": _mean(grade.correct for _, grade in guided),
        "guidance/triggered": float(len(triggered)),
        "guidance/rescued": float(len(rescued)),
        "guidance/rescued_share": _mean(_rescued(group) for group in triggered),
        "groups/solved": _mean(any(grade.correct for _, grade in _pairs(group)) for group in groups),
        "groups/uniform_before": _mean(_uniform_plain(group) for group in groups),
        "groups/uniform_after": _mean(group.uniform for group in groups),
        "entropy": _mean(rollout.entropy for rollout, _ in plain),
        "entropy/guided": _mean(rollout.entropy for rollout, _ in guided),
        "length": _mean(len(rollout.token_ids) for rollout, _ in plain),
        "length/guided": _mean(len(rollout.token_ids) for rollout, _ in guided),
        "truncated": _mean(rollout.finish == "length" for rollout, _ in plain + guided),
        "rollouts": float(len(plain) + len(guided) + len(left)),
        "tokens": float(
            sum(len(rollout.token_ids) for rollout in [*(rollout for rollout, _ in plain + guided), *left])
        ),
    }
    for stratum in sorted({group.problem.stratum for group in groups} - {""}):
        of_stratum = [pair for group in groups if group.problem.stratum == stratum for pair in _pairs(group)]
        metrics[f"accuracy/plain/{stratum}"] = _mean(
            grade.correct for rollout, grade in of_stratum if not rollout.guided
        )
    verdicts = Counter(grade.verdict for _, grade in plain + guided)
    metrics |= {f"grades/{verdict}": float(count) for verdict, count in sorted(verdicts.items())}
    if len({group.problem.grader for group in groups}) > 1:
        by_grader = Counter((grade.verdict, group.problem.grader) for group in groups for grade in group.grades)
        metrics |= {f"grades/{verdict}/{grader}": float(n) for (verdict, grader), n in sorted(by_grader.items())}
    return {name: value for name, value in metrics.items() if value is not None}


def _pairs(group: Group) -> list[tuple[Rollout, Grade]]:
    """The group's rollouts, each with its grade."""
    return list(zip(group.rollouts, group.grades, strict=True))


def _rescued(group: Group) -> bool:
    """No plain rollout is correct and a guided one is."""
    pairs = _pairs(group)
    return any(grade.correct and rollout.guided for rollout, grade in pairs) and not any(
        grade.correct and not rollout.guided for rollout, grade in pairs
    )


def _uniform_plain(group: Group) -> bool:
    """Whether the plain rollouts alone have equal rewards."""
    return len({grade.reward for rollout, grade in _pairs(group) if not rollout.guided}) <= 1


def _mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    numbers = [float(value) for value in values]
    return fmean(numbers) if numbers else None
