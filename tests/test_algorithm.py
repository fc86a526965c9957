"""Who gets guidance, how the group is rebuilt, and that groups flow as soon as they are whole."""

import itertools
import random

import pytest

from guide_rl.algorithm import (
    OUTSTANDING,
    TRIGGERS,
    build_group,
    group_to_train,
    keeps_gradient,
    needs_guidance,
    sample_groups,
)
from guide_rl.ladder import Ladder, guided_share, spared
from guide_rl.types import Grade, Group, Problem, Request, Rollout

RIGHT, WRONG = Grade(1.0, True), Grade(0.0, False)


def problem(name: str, guidance: str | None = "think") -> Problem:
    return Problem(id=name, question=f"{name}?", answer="1", guidance=guidance)


def rollout(name: str, index: int, *, guided: bool) -> Rollout:
    return Rollout(name, index, guided, (1,), (2,), (-0.5,), "text", "eos", 0.1)


class ToySampler:
    """Finishes one request a poll, in the order that `choose` picks; remembers when what was submitted."""

    def __init__(self, choose=lambda waiting: 0) -> None:
        self.waiting: list[Request] = []
        self.choose = choose
        self.log: list[tuple[str, str, bool]] = []

    def submit(self, requests) -> None:
        self.waiting += requests
        self.log += [("submitted", request.problem_id, request.guided) for request in requests]

    def poll(self) -> list[Rollout]:
        if not self.waiting:
            return []
        request = self.waiting.pop(self.choose(self.waiting))
        self.log.append(("finished", request.problem_id, request.guided))
        return [rollout(request.problem_id, request.index, guided=request.guided)]


class ToyGrader:
    """Grades by the table (problem id, index, guided) -> correct."""

    def __init__(self, correct) -> None:
        self.correct = correct

    def submit(self, problem: Problem, rollout: Rollout):
        return RIGHT if self.correct(problem.id, rollout.index, rollout.guided) else WRONG


class SlowGrader(ToyGrader):
    """Notes in the sampler's log when a grade is waited for."""

    def __init__(self, correct, sampler) -> None:
        super().__init__(correct)
        self.sampler = sampler

    def submit(self, problem: Problem, rollout: Rollout):
        grade, log = super().submit(problem, rollout), self.sampler.log

        class Pending:
            def result(self) -> Grade:
                log.append(("waited", problem.id, rollout.guided))
                return grade

        return Pending()


def run(problems, correct, *, trigger="all_incorrect", k=4, k_guided=3, choose=lambda waiting: 0):
    sampler = ToySampler(choose)
    groups = list(
        sample_groups(
            problems,
            lambda problem, guided: (1, 2) if guided else (1,),
            sampler,
            ToyGrader(correct),
            k=k,
            k_guided=k_guided,
            trigger=trigger,
        )
    )
    return {group.problem.id: group for group in groups}, sampler


@pytest.mark.parametrize(
    ("trigger", "correct_of_8", "expected"),
    [
        ("never", 0, False),
        ("all_incorrect", 0, True),
        ("all_incorrect", 1, False),
        ("mostly_incorrect", 0, True),
        ("mostly_incorrect", 1, True),
        ("mostly_incorrect", 2, False),  # 2/8 = 0.25 is not below 0.25
        ("always", 8, True),
    ],
)
def test_triggers_fire_as_in_table_3(trigger, correct_of_8, expected):
    grades = [RIGHT] * correct_of_8 + [WRONG] * (8 - correct_of_8)
    assert needs_guidance(trigger, problem("a"), grades) is expected


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_problem_without_guidance_never_triggers(trigger):
    groups, sampler = run([problem("a", guidance=None)], lambda *_: False, trigger=trigger)
    assert groups["a"].guided_G == (False,) * 4
    assert not any(guided for _, _, guided in sampler.log)


def test_only_failed_problems_get_guided_rollouts_and_groups_hold_both():
    groups, _ = run([problem("a"), problem("b")], lambda name, index, guided: name == "a" or guided)
    assert groups["a"].guided_G == (False,) * 4
    assert groups["b"].guided_G == (False,) * 4 + (True,) * 3
    assert groups["b"].rewards_G == (0.0,) * 4 + (1.0,) * 3
    assert [r.index for r in groups["b"].rollouts] == [0, 1, 2, 3, 0, 1, 2]


def test_always_samples_k_plain_and_k_guided_whatever_the_grades():
    groups, _ = run([problem("a")], lambda *_: True, trigger="always")
    assert groups["a"].guided_G == (False,) * 4 + (True,) * 3


def test_only_guided_samples_no_plain_rollout():
    groups, _ = run([problem("a")], lambda *_: False, trigger="only_guided")
    assert groups["a"].guided_G == (True,) * 3


def test_guided_rollouts_are_submitted_while_other_groups_still_run():
    problems = [problem("a"), problem("b")]
    _, sampler = run(problems, lambda name, index, guided: False)
    first_guided = sampler.log.index(("submitted", "a", True))
    last_plain_of_b = max(i for i, entry in enumerate(sampler.log) if entry == ("finished", "b", False))
    assert first_guided < last_plain_of_b


def test_sampling_goes_on_while_grades_are_worked_out():
    problems = [problem(f"p{i:02}") for i in range(OUTSTANDING + 4)]

    def first_wait(trigger):
        sampler = ToySampler()
        grader = SlowGrader(lambda name, index, guided: index == 0, sampler)
        stream = sample_groups(problems, lambda p, g: (1,), sampler, grader, k=2, k_guided=2, trigger=trigger)
        assert {group.problem.id for group in stream} == {p.id for p in problems}
        first = next(i for i, entry in enumerate(sampler.log) if entry[0] == "waited")
        return sum(entry[0] == "finished" for entry in sampler.log[:first])

    assert first_wait("all_incorrect") == 2 * (OUTSTANDING + 1), "waits for the oldest when one more would stand open"
    assert first_wait("never") == 2 * len(problems), "no decision depends on a grade, so none is waited for"


@pytest.mark.parametrize("slow", [False, True])
def test_the_groups_of_a_slow_grader_are_those_of_a_fast_one(slow):
    problems = [problem(f"p{i:02}") for i in range(20)]
    correct = lambda name, index, guided: (int(name[1:]) + index + guided) % 3 == 0  # noqa: E731
    sampler = ToySampler()
    grader = SlowGrader(correct, sampler) if slow else ToyGrader(correct)
    stream = sample_groups(problems, lambda p, g: (1 + g,), sampler, grader, k=2, k_guided=2, trigger="all_incorrect")
    groups = {group.problem.id: group for group in stream}
    assert len(groups) == 20
    for group in groups.values():
        plain = [g.correct for r, g in zip(group.rollouts, group.grades, strict=True) if not r.guided]
        assert group.triggered == (not any(plain))
        assert len(group.rollouts) == (4 if group.triggered else 2)


@pytest.mark.parametrize("seed", range(5))
def test_groups_do_not_depend_on_the_order_in_which_rollouts_finish(seed):
    problems = [problem(name) for name in "abcde"]
    rng = random.Random(seed)
    correct = lambda name, index, guided: (name, index, guided) in {("a", 2, False), ("b", 1, True)}  # noqa: E731
    shuffled, _ = run(problems, correct, choose=lambda waiting: rng.randrange(len(waiting)))
    in_order, _ = run(problems, correct)
    assert shuffled == in_order


def test_a_sampler_that_loses_requests_is_an_error_and_not_a_hang():
    class Lossy(ToySampler):
        def poll(self):
            return super().poll() if len(self.waiting) > 2 else []

    with pytest.raises(RuntimeError, match="2 rollouts missing"):
        list(
            sample_groups(
                [problem("a")], lambda p, g: (1,), Lossy(), ToyGrader(lambda *_: True), k=4, k_guided=4, trigger="never"
            )
        )


def test_seeds_and_keys_of_requests_are_all_different():
    sampler = ToySampler()
    seen = []
    submit = sampler.submit
    sampler.submit = lambda requests: (seen.extend(requests), submit(requests))
    list(
        sample_groups(
            [problem("a"), problem("b")], lambda p, g: (1,), sampler, ToyGrader(lambda *_: False), k=2, k_guided=2,
            trigger="all_incorrect", seed=(3, 7),
        )
    )  # fmt: skip
    keys = [(request.seed, request.problem_id, request.index, request.guided) for request in seen]
    assert len(set(keys)) == len(keys) == 8
    assert {request.seed for request in seen} == {(3, 7)}


def group(plain: str, guided: str = "") -> Group:
    """A group from texts of 1 (right) and 0 (wrong)."""
    graded = [(rollout("a", i, guided=False), RIGHT if c == "1" else WRONG) for i, c in enumerate(plain)]
    graded += [(rollout("a", i, guided=True), RIGHT if c == "1" else WRONG) for i, c in enumerate(guided)]
    return build_group(problem("a"), graded)


def test_keeping_successful_guided_rollouts_drops_only_guided_failures():
    kept = group_to_train(group("0000", "0110"), "successful")
    assert kept.guided_G == (False,) * 4 + (True,) * 2
    assert kept.rewards_G == (0, 0, 0, 0, 1, 1)
    assert group_to_train(group("0000", "0110"), "all") == group("0000", "0110")


@pytest.mark.parametrize(
    ("plain", "guided", "uniform"),
    [("0000", "", True), ("1111", "", True), ("0100", "", False), ("0000", "0000", True), ("0000", "0001", False)],
)
def test_the_filter_looks_at_the_group_after_guidance(plain, guided, uniform):
    assert group(plain, guided).uniform is uniform
    assert keeps_gradient(group(plain, guided), filter_uniform=True) is not uniform
    assert keeps_gradient(group(plain, guided), filter_uniform=False)


def test_group_order_is_plain_then_guided_by_index_for_every_arrival_order():
    graded = [(rollout("a", i, guided=g), WRONG) for g in (False, True) for i in range(2)]
    expected = build_group(problem("a"), graded)
    for order in itertools.permutations(graded):
        assert build_group(problem("a"), list(order)) == expected


def test_triggers_look_at_correctness_and_not_at_the_reward():
    half_right, right_for_nothing = Grade(0.5, False), Grade(0.0, True)
    assert needs_guidance("all_incorrect", problem("a"), [half_right] * 8)
    assert not needs_guidance("all_incorrect", problem("a"), [right_for_nothing] * 8)


def test_a_group_without_rollouts_is_never_trained():
    guided_only = build_group(problem("a"), [(rollout("a", 0, guided=True), WRONG)])
    emptied = group_to_train(guided_only, "successful")
    assert not emptied.rollouts
    assert not keeps_gradient(emptied, filter_uniform=False)


def with_points(name: str, points: int = 3) -> Problem:
    texts = [f"point {n}" for n in range(1, points + 1)]
    return Problem(id=name, question="?", answer="1", guidance="all of them", metadata={"guidance_points": texts})


def climbed(correct, problems=None, *, ladder=None, trigger="all_incorrect"):
    """The groups and what was asked: (problem, guidance or None) of every round."""
    asked = []

    def prompt_ids(problem, guided):
        asked.append((problem.id, problem.guidance if guided else None))
        return (1,)

    ladder = ladder or Ladder(active=True)
    stream = sample_groups(
        problems or [with_points("a")],
        prompt_ids,
        ToySampler(),
        ToyGrader(correct),
        k=2,
        k_guided=2,
        trigger=trigger,
        ladder=ladder,
    )
    return list(stream), asked, ladder


@pytest.mark.parametrize(("enough", "shown"), [(1, "1. point 1"), (2, "1. point 1\n2. point 2"), (9, None)])
def test_the_ladder_climbs_within_the_step_until_a_guided_rollout_succeeds(enough, shown):
    groups, asked, ladder = climbed(lambda name, index, guided: guided and index >= 2 * (enough - 1))
    (group,) = groups
    levels = min(enough, 3)
    assert [guidance and guidance.count("point") for _, guidance in asked] == [None, *range(1, levels + 1)]
    assert ladder.reached.get("a", 1) == levels
    assert [rollout.guided for rollout in group.rollouts] == [False, False, True, True], "one level's rollouts only"
    assert [r.index for r in group.rollouts if r.guided] == [2 * (levels - 1), 2 * levels - 1], (
        "each has its own stream"
    )
    assert group.problem.guidance == (shown or "1. point 1\n2. point 2\n3. point 3")


def test_the_level_is_remembered_and_a_copy_forgets():
    _, _, ladder = climbed(lambda name, index, guided: guided and index >= 2)
    _, asked, again = climbed(lambda name, index, guided: guided, ladder=Ladder(active=True, reached=ladder.reached))
    assert [guidance and guidance.count("point") for _, guidance in asked] == [None, 2]
    climbed(lambda *_: False, ladder=again)
    assert (ladder.reached, again.reached) == ({"a": 2}, {"a": 3})


def test_problems_without_points_are_asked_once_with_the_guidance_that_they_have():
    _, asked, ladder = climbed(lambda *_: False, [problem("p"), with_points("a", points=1)])
    assert sorted(asked, key=repr) == [("a", "1. point 1"), ("a", None), ("p", "think"), ("p", None)]
    assert not ladder.reached


def test_without_a_ladder_problems_with_points_are_asked_once_with_all_of_them():
    _, asked, ladder = climbed(lambda *_: False, ladder=Ladder(active=False))
    assert asked == [("a", None), ("a", "all of them")]
    assert not ladder.reached
    assert not ladder.left


@pytest.mark.parametrize("trigger", ["only_guided", "always"])
def test_the_ladder_works_with_every_trigger(trigger):
    groups, _, ladder = climbed(lambda name, index, guided: guided and index >= 2, trigger=trigger)
    assert ladder.reached == {"a": 2}
    assert sum(r.guided for r in groups[0].rollouts) == 2


def test_a_share_of_triggered_problems_is_guided_by_chance_that_follows_from_the_seed():
    problems = [problem(str(i)) for i in range(400)]

    def guided(share, seed):
        return [not spared(p, share, (seed, 1)) for p in problems]

    assert sum(guided(0.25, 0)) == pytest.approx(100, abs=30)
    assert guided(0.25, 0) == guided(0.25, 0) != guided(0.25, 1)
    assert all(guided(1.0, 0))
    assert not any(guided(0.0, 0))
    assert all(more or not less for more, less in zip(guided(0.5, 0), guided(0.25, 0), strict=True))


@pytest.mark.parametrize(
    ("step", "dropout", "anneal", "share"),
    [
        (1, 0.0, None, 1.0),
        (9, 0.25, None, 0.75),
        (1, 0.0, 4, 1.0),
        (3, 0.0, 4, 0.5),
        (3, 0.5, 4, 0.25),
        (9, 0.0, 4, 0.0),
    ],
)
def test_dropout_and_annealing_give_the_share(step, dropout, anneal, share):
    assert guided_share(step, dropout=dropout, anneal_steps=anneal) == share


@pytest.mark.parametrize(
    ("trigger", "expected"), [("all_incorrect", {(2, 0), (2, 2)}), ("only_guided", {(2, 0), (0, 2)})]
)
def test_spared_problems_have_plain_rollouts(trigger, expected):
    problems = [problem(str(i)) for i in range(20)]
    stream = sample_groups(
        problems,
        lambda problem, guided: (1,),
        ToySampler(),
        ToyGrader(lambda *_: False),
        k=2,
        k_guided=2,
        trigger=trigger,
        seed=(7, 1),
        share=0.5,
    )
    groups = list(stream)
    assert {(group.guided_G.count(False), group.guided_G.count(True)) for group in groups} == expected
    assert {group.problem.id for group in groups if group.triggered} == {
        p.id for p in problems if not spared(p, 0.5, (7, 1))
    }, "by the seed of the step"
