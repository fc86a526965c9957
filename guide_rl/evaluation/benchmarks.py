"""The benchmarks that a recipe of `guide evaluate` names, as problems that can be graded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guide_rl import graders
from guide_rl.config import ProblemsRecipe
from guide_rl.problems import load_problems
from guide_rl.problems.folder import check_folder
from guide_rl.recipes import read_recipe, write_recipe
from guide_rl.types import Problem


@dataclass(frozen=True)
class Benchmark:
    """A named file of problems."""

    name: str
    """The recipe's name for it."""
    path: str
    """The problem file."""
    problems: tuple[Problem, ...]
    """What it holds."""


def load_benchmark(name: str, given: str, note: Callable[[str], None] = lambda text: None) -> Benchmark:
    """A problem file, or that of a recipe of `guide problems`, which is run where it was not yet.

    Raises:
        ValueError, OSError: it cannot be read or made, a problem has no answer or an unknown grader; names the field.
    """
    try:
        path = _made(given, note) if given.endswith((".yaml", ".yml")) else given
        problems = load_problems(path)
        for problem in problems:
            try:
                graders.check(problem)
            except graders.GraderSetupError as error:
                raise graders.GraderSetupError(f"{path}, {error}") from error
    except (ValueError, OSError) as error:
        remedy = "; give the problem its answer, or leave it out" if "field 'answer'" in str(error) else ""
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"benchmarks.{name}: {error}{remedy}") from error
    return Benchmark(name, path, tuple(problems))


def _made(given: str, note: Callable[[str], None]) -> str:
    """The problem file of a recipe, made first where it is not there."""
    recipe = read_recipe(ProblemsRecipe, given)
    out = Path(recipe.out).expanduser()
    if not (out / "summary.json").is_file():
        from guide_rl.problems.preparation import prepare

        note(f"{given}: making {out}")
        prepare(recipe)
    check_folder(out, write_recipe(recipe))
    if recipe.splits:
        files = " or ".join(f"{out}/{split}.jsonl" for split in recipe.splits)
        raise ValueError(f"{given} makes several files; give the one that is meant: {files}")
    return str(out / "problems.jsonl")
