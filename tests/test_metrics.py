"""The numbers of a step, by hand."""

import pytest

from guide_rl.algorithm import build_group
from guide_rl.analysis.curves import curve, draw_curves, moving_average
from guide_rl.config import EvaluationConfig
from guide_rl.evaluation import evaluate
from guide_rl.metrics import group_metrics
from guide_rl.types import Grade, Problem, Rollout


def group(name: str, plain: str, guided: str = "", stratum: str = ""):
    """A group from texts of 1 (right) and 0 (wrong); plain rollouts have 2 tokens, guided ones 4."""
    graded = []
    for kind, text, length in ((False, plain, 2), (True, guided, 4)):
        for i, c in enumerate(text):
            finish = "length" if c == "0" else "eos"
            rollout = Rollout(name, i, kind, (1,), (2,) * length, (-1.0,) * length, "", finish, 0.5 + kind)
            graded.append((rollout, Grade(float(c), c == "1")))
    return build_group(Problem(name, "q", "1", guidance="g", stratum=stratum), graded)


def test_metrics_of_a_step_by_hand():
    groups = [
        group("a", "0000", "0110", "hard"),  # rescued
        group("b", "0000", "0000", "hard"),  # triggered, not rescued
        group("c", "0110", "", "easy"),
        group("d", "1111", "", "easy"),
    ]
    metrics = group_metrics(groups)
    assert metrics["reward"] == pytest.approx(8 / 24)
    assert metrics["accuracy/plain"] == pytest.approx(6 / 16)
    assert metrics["accuracy/guided"] == pytest.approx(2 / 8)
    assert (metrics["guidance/triggered"], metrics["guidance/rescued"], metrics["guidance/rescued_share"]) == (
        2,
        1,
        0.5,
    )
    assert metrics["groups/uniform_before"] == 3 / 4  # a, b, d
    assert metrics["groups/uniform_after"] == 2 / 4  # b, d
    assert metrics["groups/solved"] == 3 / 4
    assert (metrics["length"], metrics["length/guided"]) == (2, 4)
    assert (metrics["entropy"], metrics["entropy/guided"]) == (0.5, 1.5)
    assert metrics["truncated"] == pytest.approx(16 / 24)
    assert (metrics["rollouts"], metrics["tokens"]) == (24, 16 * 2 + 8 * 4)
    assert (metrics["accuracy/plain/hard"], metrics["accuracy/plain/easy"]) == (0, 6 / 8)


def test_what_did_not_happen_is_left_out_and_not_a_number():
    metrics = group_metrics([group("a", "01")])
    assert not {"accuracy/guided", "guidance/rescued_share", "entropy/guided", "length/guided"} & set(metrics)


def test_always_guided_groups_with_a_plain_success_are_not_rescued():
    assert group_metrics([group("a", "01", "11")])["guidance/rescued"] == 0


def test_evaluation_reports_greedy_and_sampled_pass_at_k_by_stratum():
    problems = [Problem("0", "q", "1", stratum="x"), Problem("1", "q", "1", stratum="y")]

    class Sampler:
        def __init__(self, temperature):
            self.temperature, self.waiting = temperature, []

        def submit(self, requests):
            assert all(request.seed[1] > 10**9 for request in requests), "a random stream that no training step has"
            self.waiting += requests

        def poll(self):
            done, self.waiting = self.waiting, []
            return [
                Rollout(r.problem_id, r.index, r.guided, r.prompt_ids, (1,), (0.0,), f"{self.temperature}", "eos", 0.0)
                for r in done
            ]

    class Grader:
        def submit(self, problem, rollout):
            # Greedy solves problem 1; of the four samples, problem 0 has one right and problem 1 none.
            right = (rollout.text == "0.0" and problem.id == "1") or (
                rollout.text == "1.0" and problem.id == "0" and rollout.index == 2
            )

            class Done:
                def result(self):
                    return Grade(float(right), right)

            return Done()

    metrics, groups = evaluate(problems, lambda p, g: (1,), Sampler, Grader(), EvaluationConfig(samples=4), seed=0)
    assert metrics["evaluation/pass@1"] == 0.5
    assert (metrics["evaluation/pass@1/x"], metrics["evaluation/pass@1/y"]) == (0, 1)
    assert metrics["evaluation/sampled_pass@1/x"] == 0.25
    assert metrics["evaluation/pass@2/x"] == 0.5  # 1 - C(3,2)/C(4,2) = 1 - 3/6
    assert metrics["evaluation/pass@4"] == 0.5
    assert len(groups) == 4


def test_curves_put_evaluations_at_the_rollouts_sampled_before_them(tmp_path):
    rows = [
        {"step": 0, "evaluation/pass@1": 0.1},
        {"step": 1, "total/rollouts": 8, "reward": 0.5},
        {"step": 2, "total/rollouts": 20, "reward": 0.6},
        {"step": 2, "evaluation/pass@1": 0.2},
    ]
    x, y = curve(rows, "evaluation/pass@1")
    assert (x.tolist(), y.tolist()) == ([0, 20], [0.1, 0.2])
    draw_curves({"a": rows, "b": []}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_moving_averages_look_back_only():
    import numpy as np

    assert moving_average(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1, 2, 4, 6]
