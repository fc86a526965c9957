"""reasoning-gym's verifiers, and that model text does not run in them."""

import functools
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from guide_rl.graders import check, procedural, resolve
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Problem

reasoning_gym = pytest.importorskip("reasoning_gym")

NO_REFERENCE = {"boxnet", "composite", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Data sets whose entries have no reference answer, and the one that is made of others."""
LEFT_OUT = {"arc_agi", "futoshiki", "intermediate_integration", "n_queens", "simple_integration"}
"""One opens a file that it never closes, the others are slow."""
ALL = sorted(reasoning_gym.factory.DATASETS)
CODE = [
    "__import__('os').system('touch {file}')",
    "[__import__('os').system('touch {file}')]",
    "open('{file}', 'w').write('x')",
    "(lambda: open('{file}', 'w'))()",
    "x.__class__.__base__.__subclasses__()",
    "1 + eval(\"open('{file}','w').close() or 1\")",
]


def _problem(name: str, *, seed: int = 3, **settings: Any) -> Problem:
    """A problem of the data set, as it comes back from a JSON lines file."""
    entry = json.loads(json.dumps(reasoning_gym.create_dataset(name, size=1, seed=seed, **settings)[0]))
    answer = entry["answer"] if isinstance(entry["answer"], str) else "none"
    metadata = {"source_dataset": name, "entry": entry}
    return Problem(name, entry["question"], answer, grader="reasoning_gym", metadata=metadata)


_cached = functools.cache(_problem)


@pytest.mark.parametrize("name", sorted(set(ALL) - NO_REFERENCE - LEFT_OUT))
def test_every_verifier_accepts_its_reference_answer_so_equality_may_decide(name: str) -> None:
    problem = _problem(name)
    text = f"<answer>{problem.answer}</answer>"
    assert procedural.quick_grade(problem, text) == procedural.thorough_grade(problem, text)
    assert procedural.thorough_grade(problem, text).correct


@pytest.mark.parametrize("name", ["graph_color", "propositional_logic", "rubiks_cube"])
def test_without_a_reference_answer_only_the_verifier_decides(name: str) -> None:
    problem = _problem(name)
    assert procedural.quick_grade(problem, "<answer>none</answer>") is None
    assert not procedural.thorough_grade(problem, "<answer>none</answer>").correct


def test_an_answer_other_than_the_reference_can_be_right_or_earn_a_part() -> None:
    problem = _problem("countdown")
    reference = problem.metadata["entry"]["answer"]
    grade = resolve("reasoning_gym")
    assert grade(problem, rf"\boxed{{0 + {reference}}}").verdict == "wrong"  # 0 is not one of the numbers given.
    assert grade(problem, rf"\boxed{{({reference})}}").correct
    part = grade(problem, r"\boxed{1}")
    assert not part.correct
    assert 0 < part.reward < 1


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize(
    "name", [*procedural.PARSING, "binary_matrix", "spiral_matrix", "string_insertion", "n_queens"]
)
def test_model_text_is_never_run(name: str, code: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    text = f"<answer>{code.format(file=file)}</answer>"
    assert not resolve("reasoning_gym")(_cached(name), text).correct
    assert not file.exists()


def test_all_verifiers_that_run_answers_are_known() -> None:
    runs = re.compile(
        r"(?<![\w.])(?:eval|exec)\(\s*(?:str\()?(?:answer|user_\w+)|parse_expr\(\s*answer|sympify\(\s*answer"
    )
    found = set()
    for name, (dataset, _) in reasoning_gym.factory.DATASETS.items():
        module = inspect.getmodule(dataset)
        assert module is not None
        if runs.search(inspect.getsource(module)):
            found.add(name)
    literal = {module.rsplit(".", 1)[1] for module in procedural.EVALUATING}
    assert found == literal | set(procedural.PARSING)


def test_answers_as_python_lists_still_earn_their_part() -> None:
    problem = _problem("spiral_matrix")
    grade = resolve("reasoning_gym")(problem, f"<answer>{[int(n) for n in problem.answer.split()]}</answer>")
    assert (grade.reward, grade.correct) == (0.1, False)


@pytest.mark.parametrize(
    "metadata", [{}, {"source_dataset": "chain_sum"}, {"source_dataset": "chain_sum", "entry": {}}]
)
def test_a_problem_without_its_entry_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(GraderSetupError, match="problem 'p': grader reasoning_gym needs metadata with source_dataset"):
        check(Problem("p", "q", "5", grader="reasoning_gym", metadata=metadata))


def test_an_unknown_data_set_is_refused_by_name() -> None:
    metadata = {"source_dataset": "no_such_set", "entry": {"question": "q", "answer": "5", "metadata": {}}}
    with pytest.raises(GraderSetupError, match="no data set 'no_such_set'; correct source_dataset"):
        procedural.thorough_grade(Problem("p", "q", "5", metadata=metadata), r"\boxed{6}")
