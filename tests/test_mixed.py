"""Math, code and STEM in one run: one problem file of several sources, a grader for each problem, metrics for each domain."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from guide_rl import graders
from guide_rl.config import GradingConfig, ProblemsRecipe, TrainRecipe
from guide_rl.graders.pool import GraderPool
from guide_rl.graders.sandbox import bubblewrap
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.interrupts import Interrupts
from guide_rl.metrics import group_metrics
from guide_rl.problems import load_problems, save_problems
from guide_rl.problems.preparation import prepare
from guide_rl.progress import Progress
from guide_rl.recipes import read_recipe, write_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.types import Group, PendingGrade, Problem, Rollout

ROOT = Path(__file__).parent.parent
ROWS = Path(__file__).parent / "data/sources"
SCIQ = {
    "question": "Which of these is a noble gas?",
    "correct_answer": "neon",
    "distractor1": "oxygen",
    "distractor2": "chlorine",
    "distractor3": "sodium",
    "support": "Neon does not react.",
}
WEB = {"category": "Physics", "answer_type": "Float", "difficulty": "University"}
QUANTITIES = [
    {**WEB, "id": 1, "question": "How fast is a stone after falling for one second?", "answer": "9.8 m/s"},
    {**WEB, "id": 2, "question": "Who found neon?", "answer": "William Ramsay", "answer_type": "String"},
]
RIGHT = {
    "math": r"\boxed{54.0}",
    "code": "```python\nclass Solution:\n    def double(self, n):\n        return n + n\n```",
    "choices": "The answer is neon.",
    "quantities": r"\boxed{980 \text{ cm/s}}",
}
ENDLESS = {
    "math": r"\boxed{9^{9^{9}}}",
    "code": "```python\nclass Solution:\n    def double(self, n):\n        while True: pass\n```",
    "choices": "The answer is neon or " * 10**5,
    "quantities": r"\boxed{\sin(9^{9^{9}}) \text{ cm/s}}",
}
TIMED_OUT = 3
"""Of the ENDLESS: the sentence about neon is read up to a limit instead."""
SLOW = ("math", "quantity", "unit_tests")
"""The graders of the others."""


def sandboxed() -> bool:
    try:
        bubblewrap.check()
    except GraderSetupError:
        return False
    return True


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """The files that the shipped recipe makes of a few rows."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, rows in (("sciq", [SCIQ]), ("web", QUANTITIES)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {"math": ROWS / "gsm8k.jsonl", "code": ROWS / "leetcode.jsonl", "choices": folder / "sciq.jsonl"}
    paths["quantities"] = folder / "web.jsonl"
    local = [f"sources.{name}.path={path}" for name, path in paths.items()] + ["sources.quantities.streaming=false"]
    settings = [
        *local,
        "sources.math.limit=1",
        "against=[]",
        "splits={}",
        "unreadable_answers=unchecked",
        f"out={folder}/out",
    ]
    prepare(read_recipe(ProblemsRecipe, ROOT / "recipes/problems/mixed.yaml", settings))
    return folder / "out/problems.jsonl"


@pytest.fixture(scope="module")
def pool():
    """Graders with their sandbox; the code here is the test's own, so that one may be missing."""
    config = GradingConfig(workers=2, timeout_s=2.0, run_untrusted_code_without_sandbox=not sandboxed())
    with GraderPool.of(config) as pool:
        yield pool


def source_of(problem: Problem) -> str:
    return problem.id.partition("/")[0]


class Scripted:
    """Grades a text of the source in place of what the model wrote: a right, an endless, an empty and a wrong one in turn."""

    def __init__(self, pool: GraderPool, hard: str = "") -> None:
        self.pool, self.hard = pool, hard  # Plain rollouts of the hard source hold nothing.

    def submit(self, problem: Problem, rollout: Rollout) -> PendingGrade:
        source = source_of(problem)
        text = (RIGHT[source], ENDLESS[source], "", r"\boxed{-1}")[rollout.index % 4]
        text = "" if source == self.hard and not rollout.guided else text
        return self.pool.submit(problem, replace(rollout, text=text, finish="eos"))


def test_one_file_holds_the_problems_of_all_domains_and_each_names_its_grader(mixed):
    problems = load_problems(mixed)
    expected = {"math": "math", "code": "unit_tests", "choices": "choice", "quantities": "quantity"}
    assert {source_of(problem): problem.grader for problem in problems} == expected
    assert Counter(problem.stratum for problem in problems) == {"math": 1, "code": 1, "stem": 2}
    for problem in problems:
        graders.check(problem)


@pytest.mark.e2e
def test_graders_of_all_domains_work_side_by_side_and_what_outlasts_its_limit_is_named(mixed, pool):
    problems = load_problems(mixed)
    for problem in problems:
        pool.check(problem)
    pool.warm_up()
    scripted = Scripted(pool)
    rollouts = [
        (problem, Rollout(problem.id, index, False, (), (), (), "", "eos", 0.0))
        for problem in problems
        for index in range(4)
    ]
    pending = [scripted.submit(problem, rollout) for problem, rollout in rollouts]
    grades = [grade.result() for grade in pending]
    groups = [
        Group(problem, tuple(r for _, r in rollouts[at : at + 4]), tuple(grades[at : at + 4]))
        for at, problem in zip(range(0, len(rollouts), 4), problems, strict=True)
    ]
    for group in groups:
        assert [grade.correct for grade in group.grades] == [True, False, False, False], group.problem.grader
    metrics = group_metrics(groups)
    assert metrics["grades/timeout"] == TIMED_OUT
    assert {key for key in metrics if key.startswith("grades/timeout/")} == {f"grades/timeout/{name}" for name in SLOW}
    assert [metrics[f"accuracy/plain/{domain}"] for domain in ("math", "code", "stem")] == [0.25] * 3


@pytest.mark.e2e
def test_the_recipe_of_the_three_domains_trains_for_two_steps_with_metrics_for_each(mixed, pool, tmp_path):
    pytest.importorskip("torch")
    from tiny_models import tiny_model, tiny_tokenizer

    from guide_rl.trainers.engine import engine_of
    from guide_rl.trainers.trainer import Trainer

    guided = [replace(problem, guidance="Think.") for problem in load_problems(mixed)]
    save_problems(tmp_path / "train.jsonl", guided)
    tiny_model("qwen2").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    settings = [
        f"model.path={tmp_path}/model",
        "model.device=cpu",
        f"problems.train={tmp_path}/train.jsonl",
        "problems.evaluation=null",
        "evaluation.every=0",
    ]
    settings += [f"run={tmp_path}/run", "steps=2", "problems_per_step=4", "sampling.k=4", "sampling.max_tokens=8"]
    settings += ["optimizer.problems_per_minibatch=4", "prompts.system=none"]
    recipe = read_recipe(TrainRecipe, ROOT / "recipes/mixed.yaml", settings)
    run = RunFolder.create(recipe.run, write_recipe(recipe))
    progress = Progress(2, console=Console(quiet=True))
    trainer = Trainer(recipe, run, None, progress, Scripted(pool, hard="math"), engine_of(recipe, run, None))
    with Interrupts() as interrupts:
        trainer.step(interrupts)
        trainer.step(interrupts)
    for row in run.read("metrics.jsonl"):
        accuracies = {name: row[f"accuracy/plain/{name}"] for name in ("math", "code", "stem")}
        assert accuracies == {"math": 0.0, "code": 0.25, "stem": 0.25}
        assert row["guidance/rescued"] == row["guidance/triggered"] == 1
        assert row["grades/timeout"] == TIMED_OUT
        assert [row[f"grades/timeout/{name}"] for name in SLOW] == [1, 1, 1]
        assert row["grad_norm"] > 0


def test_no_text_holds_up_who_submits_it(mixed):
    started = time.process_time()
    for problem in load_problems(mixed):
        for text in ("\\boxed{" * 10**5, "answer is " * 10**5, ENDLESS["choices"], "```python\n" * 10**5, "9" * 10**6):
            graders.quick_grade(problem, text)
    assert time.process_time() - started < 3.0
