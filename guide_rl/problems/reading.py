"""Sources -> problems: every row with its problem or why it is none, and the questions of evaluation sets."""

from collections.abc import Iterator
from pathlib import Path

from guide_rl.config import ProblemsRecipe, SourceConfig
from guide_rl.problems.columns import RowRejected, check_map, needed_columns, to_problem, to_question
from guide_rl.problems.sources import read_rows
from guide_rl.problems.sources.rows import Row
from guide_rl.recipes import read_recipe
from guide_rl.types import Problem


def problems_of(name: str, source: SourceConfig, seed: int) -> Iterator[tuple[int, Row | str, Problem | RowRejected]]:
    """The rows of a source with their numbers, each with its problem or why it is none."""
    found = 0
    for number, row in read_rows(source, needed_columns(source), seed):
        try:
            problem = to_problem(row, number, name, source, seed)
        except RowRejected as why:
            yield number, row, why
            continue
        yield number, row, problem
        found += 1
        if found == source.limit:
            return


def evaluation_set(name: str, unread: list[list[object]]) -> Iterator[Problem]:
    """The problems of a file of problems or of a recipe's sources, of which only the question must be readable.

    Rows without a readable question are added to `unread`: source, row and why.
    """
    empty = True
    try:
        if name.endswith((".yaml", ".yml")):
            recipe = read_recipe(ProblemsRecipe, name)
            sources, seed = recipe.sources, recipe.seed
        else:
            sources, seed = {Path(name).stem: SourceConfig(name)}, 0
        for source_name, source in sources.items():
            check_map(source_name, source)
            for number, row, problem in problems_of(source_name, source, seed):
                if isinstance(problem, RowRejected) and problem.reason == "filtered":
                    continue
                try:
                    if isinstance(problem, RowRejected):
                        problem = to_question(row, number, source_name, source, seed)
                except RowRejected as why:
                    unread.append([source_name, number, str(why)])
                    continue
                empty = False
                yield problem
    except (ValueError, OSError) as error:
        raise (OSError if isinstance(error, OSError) else ValueError)(f"against: {error}") from error
    if empty:
        said = f" (row {unread[0][1]}: {unread[0][2]})" if unread else ""
        raise ValueError(f"against: {name} holds no question that can be read{said}; correct it or remove it")
