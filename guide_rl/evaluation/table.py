"""The results of an evaluation as a table for a terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from guide_rl.config import EvaluateRecipe
from guide_rl.equations.intervals import Average, bootstrap
from guide_rl.equations.pass_at_k import pass_at_k
from guide_rl.evaluation.models import EvaluatedModel

Row = Mapping[str, Any]
AVERAGES: tuple[Average, ...] = ("macro", "micro")
WIDE = 10_000
"""Columns where no terminal limits them."""
APART = ("truncated", "ungradable", "empty")


@dataclass(frozen=True)
class Measure:
    """A column for each model."""

    label: str
    temperature: float
    guided: bool
    k: int

    def values(self, rows: Sequence[Row]) -> np.ndarray:
        """pass@k of each problem, [P]."""
        own = [row["correct"] for row in rows if (row["temperature"], row["guided"]) == (self.temperature, self.guided)]
        return np.array([pass_at_k(len(correct), sum(correct), self.k) for correct in own])


def measures_of(recipe: EvaluateRecipe) -> list[Measure]:
    """Greedy pass@1 (of samples, where nothing was greedy), pass@k, and the same of guided samples."""
    k, temperature = recipe.k_shown, recipe.temperature
    sampled = [Measure(f"P@{k}", temperature, False, k)] * (k > 1)
    first = Measure("P@1", 0.0, False, 1) if recipe.runs_of_greedy else Measure("sampled P@1", temperature, False, 1)
    guided = [Measure(f"guided P@{k}", temperature, True, k)] * recipe.guided
    return [first, *sampled, *guided]


def print_table(
    recipe: EvaluateRecipe, models: Sequence[EvaluatedModel], results: Sequence[Row], console: Console | None = None
) -> None:
    """Print pass@1 and pass@k of each model, in per cent with half of the 95 % interval, and what was no answer.

    Args:
        recipe: its benchmarks are the rows.
        models: the columns.
        results: lines of results.jsonl, of these models and maybe others.
        console: where to print; standard output by default.
    """
    measures = measures_of(recipe)
    table = Table("", box=None, pad_edge=False)
    for model in models:
        for label in (*(measure.label for measure in measures), "/\n".join(APART)):
            table.add_column(f"{model}\n{label}", justify="right")
    rows = {
        (model, benchmark): [
            row
            for row in results
            if (row["model"], row["step"], row["benchmark"]) == (model.name, model.step, benchmark)
        ]
        for model in models
        for benchmark in recipe.benchmarks
    }
    for benchmark in recipe.benchmarks:
        table.add_row(benchmark, *_cells([[rows[model, benchmark]] for model in models], measures, "macro"))
    for average in AVERAGES if len(recipe.benchmarks) > 1 else ():
        of_models = [[rows[model, benchmark] for benchmark in recipe.benchmarks] for model in models]
        table.add_row(f"{average} average", *_cells(of_models, measures, average))
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    with console.capture() as printed:
        console.print(table)
    console.file.writelines(f"{line.rstrip()}\n" for line in printed.get().splitlines())


def _cells(of_models: Sequence[Sequence[Sequence[Row]]], measures: Sequence[Measure], average: Average) -> list[str]:
    """A line of the table: model -> benchmark -> rows."""
    cells = []
    for benchmarks in of_models:
        cells += [_mean([measure.values(rows) for rows in benchmarks], average) for measure in measures]
        cells.append(_apart([row for rows in benchmarks for row in rows]))
    return cells


def _mean(benchmarks: Sequence[np.ndarray], average: Average) -> str:
    """A mean in per cent with half the width of its interval; a benchmark without values is left out."""
    known = [values for values in benchmarks if values.size]
    if not known:
        return "-"
    interval = bootstrap(known, average=average)
    return f"{100 * interval.mean:.1f} ±{50 * (interval.high - interval.low):.1f}"


def _apart(rows: Sequence[Row]) -> str:
    """Shares of the rollouts that hold no answer, in per cent."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["outcomes"])
    return "/".join(f"{100 * counts[name] / counts.total():.1f}" for name in APART) if counts else "-"
