"""The paper in a page: sample, grade, guide where all failed -> groups. No torch.

Decisions first (pure functions, which every engine calls), a short driver second. Departure from algorithm 1
of the paper: guided rollouts of a problem are submitted as soon as its own plain rollouts are graded, not
after the whole batch; the groups that come out are the same.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from guide_rl.ladder import Ladder, spared
from guide_rl.types import Grade, Grader, Group, PendingGrade, Problem, Request, Rollout, Sampler

Trigger = Callable[[Sequence[bool]], bool]

TRIGGERS: dict[str, Trigger] = {
    "never": lambda correct_G: False,
    "all_incorrect": lambda correct_G: not any(correct_G),
    "mostly_incorrect": lambda correct_G: sum(correct_G) < 0.25 * len(correct_G),
    "always": lambda correct_G: True,
    "only_guided": lambda correct_G: True,
}
"""The rules of table 3: whether plain rollouts that were `correct_G` call for guided ones."""

KEEPERS: dict[str, Callable[[Grade], bool]] = {
    "all": lambda grade: True,
    "successful": lambda grade: grade.correct,
}
"""Which guided rollouts join the group."""


def needs_guidance(trigger: str, problem: Problem, plain_grades: Sequence[Grade]) -> bool:
    """Whether the problem gets guided rollouts; one without guidance never does."""
    return problem.guidance is not None and TRIGGERS[trigger]([grade.correct for grade in plain_grades])


def plain_rollouts_wanted(trigger: str, problem: Problem, k: int) -> int:
    """k, or 0 where every rollout of the problem is to be guided."""
    return 0 if trigger == "only_guided" and problem.guidance is not None else k


def build_group(problem: Problem, graded: Sequence[tuple[Rollout, Grade]]) -> Group:
    """S(q): all plain rollouts, then all guided ones, each in the order of its index."""
    ordered = sorted(graded, key=lambda pair: (pair[0].guided, pair[0].index))
    return Group(problem, tuple(rollout for rollout, _ in ordered), tuple(grade for _, grade in ordered))


def group_to_train(group: Group, keep_guided: str) -> Group:
    """The group without the guided rollouts that `keep_guided` rejects."""
    keep = KEEPERS[keep_guided]
    pairs = zip(group.rollouts, group.grades, strict=True)
    return build_group(
        group.problem, [(rollout, grade) for rollout, grade in pairs if not rollout.guided or keep(grade)]
    )


def keeps_gradient(group: Group, *, filter_uniform: bool) -> bool:
    """Whether the group stays in the sum and in the normaliser: the uniform filter, applied after guidance.

    One without rollouts (all guided, and none of them kept) never does.
    """
    return bool(group.rollouts) and not (filter_uniform and group.uniform)


OUTSTANDING = 8
"""Problems that may wait for their grades while others are sampled: more overlap, and later guided requests."""


def sample_groups(
    problems: Sequence[Problem],
    prompt_ids: Callable[[Problem, bool], tuple[int, ...]],
    sampler: Sampler,
    grader: Grader,
    *,
    k: int,
    k_guided: int,
    trigger: str,
    seed: tuple[int, ...] = (),
    share: float = 1.0,
    ladder: Ladder | None = None,
) -> Iterator[Group]:
    """Algorithm 1, lines 5 to 12: yield each problem's group as soon as it is whole.

    Rollouts are graded beside sampling. A problem is settled (guided, or yielded) at once where its grades were known
    at once; else while others are sampled, and sampling waits for the oldest when more than `OUTSTANDING` stand open.
    So which requests enter the sampler when depends on tokens only and never on the clock.

    Args:
        problems: the batch; ids must differ.
        prompt_ids: (problem, guided) -> the prompt's token ids.
        sampler: the stream that makes rollouts.
        grader: judges them.
        k: plain rollouts per problem.
        k_guided: guided rollouts per triggered problem.
        trigger: a name in `TRIGGERS`.
        seed: key of the step's random streams, e.g. (seed, step).
        share: share of the triggered problems that get guidance, by chance.
        ladder: the levels of guidance; it climbs where all guided rollouts fail, and only the last level's stay in the group.

    Yields:
        One group per problem, with all its rollouts, in the order in which they become whole.
    """
    ladder = ladder or Ladder(active=False)
    by_id = {problem.id: problem for problem in problems}
    graded: defaultdict[str, list[tuple[Rollout, PendingGrade]]] = defaultdict(list)
    missing: dict[str, int] = {}
    unsettled: deque[str] = deque()
    outstanding = len(problems) if trigger == "never" else OUTSTANDING

    def request(problem: Problem, count: int, *, guided: bool) -> None:
        ids = prompt_ids(ladder.at_level(problem) if guided else problem, guided)
        first = k_guided * (ladder.level(problem) - 1) if guided else 0
        sampler.submit([Request(problem.id, first + index, guided, ids, seed) for index in range(count)])
        missing[problem.id] = count

    for problem in problems:
        plain = k if spared(problem, share, seed) else plain_rollouts_wanted(trigger, problem, k)
        request(problem, plain or k_guided, guided=plain == 0)

    while missing or unsettled:
        finished = sampler.poll() if missing else []
        if not (finished or unsettled):
            raise RuntimeError(f"the sampler went idle with {sum(missing.values())} rollouts missing")
        for rollout in finished:
            name = rollout.problem_id
            graded[name].append((rollout, grader.submit(by_id[name], rollout)))
            missing[name] -= 1
            if not missing[name]:
                del missing[name]
                unsettled.append(name)
        while unsettled and (not finished or len(unsettled) > outstanding or _known(graded[unsettled[0]])):
            name = unsettled.popleft()
            problem, pairs = by_id[name], [(rollout, grade.result()) for rollout, grade in graded[name]]
            plain_grades = [grade for rollout, grade in pairs if not rollout.guided]
            guided_grades = [grade for rollout, grade in pairs if rollout.guided]
            if (
                not guided_grades
                and needs_guidance(trigger, problem, plain_grades)
                and not spared(problem, share, seed)
            ):
                request(problem, k_guided, guided=True)
            elif guided_grades and not any(grade.correct for grade in guided_grades) and ladder.climb(problem):
                ladder.left += [rollout for rollout, _ in pairs if rollout.guided]
                graded[name] = [pair for pair in graded[name] if not pair[0].guided]
                request(problem, k_guided, guided=True)
            else:
                del graded[name]
                yield build_group(ladder.at_level(problem) if guided_grades else problem, pairs)


def _known(pairs: Sequence[tuple[Rollout, PendingGrade]]) -> bool:
    """Whether no grade has to be waited for; what was known at once depends on the texts only."""
    return all(isinstance(grade, Grade) for _, grade in pairs)
