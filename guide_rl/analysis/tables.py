"""The paper's tables from what was measured: benchmark rows, method columns, best in bold; Markdown, LaTeX and CSV.

| table          | the paper's | holds                                                       |
|----------------|-------------|-------------------------------------------------------------|
| results        | 1, 2        | pass@1 (greedy) and pass@k of every benchmark, averages     |
| averages       | 3           | the averages alone                                          |
| intervals      |             | results with 95 % bootstrap intervals over problems         |
| paper          | 4, 5        | results with the paper's own intervals                      |
| differences    |             | each model less the first, paired bootstrap over problems   |
| gains          | (figure 1)  | progress, regression, self-distillation, capability gain    |
| answers        |             | rollouts that were truncated, ungradable or empty           |
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from guide_rl.analysis.gains import GainRow
from guide_rl.analysis.run_data import Measured, Run
from guide_rl.analysis.table_files import MISSING, Cell, Table
from guide_rl.equations.gains import Estimate
from guide_rl.equations.intervals import (
    bootstrap,
    paired_bootstrap,
    paper_greedy_half_width,
    paper_macro_half_width,
    paper_pass_at_k_half_width,
)
from guide_rl.equations.pass_at_k import pass_at_k_curves

AVERAGES = {"Macro Avg.": "macro", "Micro Avg.": "micro"}


@dataclass(frozen=True)
class Scores:
    """What one model reached on one benchmark, problem by problem."""

    values_P: np.ndarray
    """pass@1 (mean of greedy runs) or pass@k of each problem."""
    run_means_R: tuple[float, ...] = ()
    """Greedy only: the mean of each run over the problems."""


def chosen_k(measured: Measured, k: int | None = None) -> int:
    """The k of pass@k: the wish, or the largest power of two up to 16 that every model has rollouts for; 1 without samples.

    Raises ValueError where some model has fewer than k sampled rollouts a problem.
    """
    counts = {
        (model, benchmark): matrix.shape[1]
        for model in measured.models
        for benchmark in measured.benchmarks
        if (matrix := measured.matrix(model, benchmark, greedy=False, step=measured.last(model, benchmark))) is not None
    }
    fewest = min(counts.values(), default=1)
    if k is not None and k < 1:
        raise ValueError(f"--k {k}: must be at least 1")
    if k is None:
        return max(power for power in (1, 2, 4, 8, 16) if power <= fewest)
    if k > fewest and counts:
        model, benchmark = min(counts, key=lambda key: counts[key])
        raise ValueError(
            f"--k {k}: {model} has only {fewest} sampled rollouts a problem on {benchmark}; pass@k needs at least k "
            "(guide evaluate samples=...), or lower --k"
        )
    return k


def scores(measured: Measured, model: str, benchmark: str, k: int) -> Scores | None:
    """Greedy pass@1 (k = 0) or pass@k of a model's newest weights; None where it was not measured."""
    matrix = measured.matrix(model, benchmark, greedy=k == 0, step=measured.last(model, benchmark))
    if matrix is None:
        return None
    if k == 0:
        return Scores(matrix.mean(1), tuple(map(float, matrix.mean(0))))
    return Scores(pass_at_k_curves(matrix, [k])[:, 0])


Show = Callable[[list[Scores], str], str]
"""The scores of the benchmarks in a cell (one, or all of an average) and macro or micro -> its text."""


def _per_cent(value: float) -> str:
    return f"{100 * value:.2f}"


def _mean(found: Sequence[Scores], average: str) -> float:
    arrays = [score.values_P for score in found]
    return float(np.mean([values.mean() for values in arrays]) if average == "macro" else np.concatenate(arrays).mean())


def _plain(found: list[Scores], average: str, k: int) -> str:
    return _per_cent(_mean(found, average))


def _bootstrapped(found: list[Scores], average: str, k: int) -> str:
    interval = bootstrap([score.values_P for score in found], average=average)  # type: ignore[arg-type]
    return f"{_per_cent(interval.mean)} [{_per_cent(interval.low)}, {_per_cent(interval.high)}]"


def _by_the_paper(found: list[Scores], average: str, k: int) -> str:
    return f"{_per_cent(_mean(found, average))} ± ({_per_cent(_paper_half_width(found, average, k))})"


def _paper_half_width(found: list[Scores], average: str, k: int) -> float:
    """As tables 4 and 5 have it; see `equations.intervals`."""
    if average == "macro":
        return paper_macro_half_width([_paper_half_width([score], "micro", k) for score in found])
    if k == 0:
        weights = np.array([score.values_P.size for score in found], dtype=float)
        runs = min(len(score.run_means_R) for score in found)
        means_BR = np.array([score.run_means_R[:runs] for score in found])
        return paper_greedy_half_width(list(weights @ means_BR / weights.sum()))
    return paper_pass_at_k_half_width(_mean(found, average), sum(score.values_P.size for score in found), k)


def results_table(measured: Measured, k: int, style: str = "results") -> Table:
    """Tables 1 to 5: `style` is results, averages, intervals or paper."""
    show, caption = {
        "results": (_plain, "Layout of the paper's tables 1 and 2."),
        "averages": (_plain, "Layout of the paper's table 3."),
        "intervals": (_bootstrapped, "With 95 % intervals: bootstrap over problems, 10,000 resamples."),
        "paper": (
            _by_the_paper,
            "Layout of the paper's tables 4 and 5, with the paper's own intervals: for P@1 the spread of greedy runs on the "
            "same problems (0 where decoding is deterministic), for P@k about sqrt(k) times narrower than the binomial "
            "interval. Compare runs by the bootstrap's.",
        ),
    }[style]
    wholes = [name for name in measured.benchmarks if "/" not in name]
    rows: list[tuple[Cell, ...]] = []
    cells = {} if style == "averages" else {name: [name] for name in measured.benchmarks}
    if len(wholes) > 1 or style == "averages":
        cells |= dict.fromkeys(AVERAGES, wholes)
    for name, benchmarks in cells.items():
        for label, ks in (("P@1", 0), (f"P@{k}" if k > 1 else "P@1, sampled", k)):
            found = {model: [scores(measured, model, b, ks) for b in benchmarks] for model in measured.models}
            whole = {m: [s for s in values if s is not None] for m, values in found.items() if None not in values}
            if not whole:
                continue
            average = AVERAGES.get(name, "macro")
            texts = {m: show(values, average, ks) for m, values in whole.items()}
            best = _best({m: _mean(values, average) for m, values in whole.items()})
            rows.append((Cell(name), Cell(label), *(Cell(texts.get(m, MISSING), m in best) for m in measured.models)))
    titles = {
        "results": "Results",
        "averages": "Averages",
        "intervals": "Results with intervals",
        "paper": "The paper's intervals",
    }
    caption += " Per cent; P@1: greedy" + (
        f", P@{k}: unbiased, sampled." if any(r[1].text != "P@1" for r in rows) else "."
    )
    return Table(style, titles[style], caption, ("Benchmark", "Metric", *measured.models), tuple(rows))


def _best(values: dict[str, float]) -> set[str]:
    """The models with the highest value, to two decimals of a per cent; none where all have the same."""
    top = max(round(100 * value, 2) for value in values.values())
    best = {model for model, value in values.items() if round(100 * value, 2) == top}
    return best if len(best) < len(values) else set()


def differences_table(measured: Measured, k: int, baseline: str) -> Table:
    """Every model less the baseline on the same problems, with its paired 95 % interval."""
    rows: list[tuple[Cell, ...]] = []
    others = [model for model in measured.models if model != baseline]
    wholes = [name for name in measured.benchmarks if "/" not in name]
    cells = {name: [name] for name in measured.benchmarks} | (
        dict.fromkeys(AVERAGES, wholes) if len(wholes) > 1 else {}
    )
    for name, benchmarks in cells.items():
        for label, ks in (("P@1", 0), (f"P@{k}" if k > 1 else "P@1, sampled", k)):
            row = [Cell(name), Cell(label)]
            for model in others:
                pairs = [(scores(measured, model, b, ks), scores(measured, baseline, b, ks)) for b in benchmarks]
                values = [(ours.values_P, theirs.values_P) for ours, theirs in pairs if ours and theirs]
                if len(values) < len(pairs):
                    row.append(Cell(MISSING))
                    continue
                ours, theirs = map(list, zip(*values, strict=True))
                found = paired_bootstrap(ours, theirs, average=AVERAGES.get(name, "macro"))  # type: ignore[arg-type]
                text = f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
                row.append(Cell(text, found.low > 0 or found.high < 0))
            if any(cell.text != MISSING for cell in row[2:]):
                rows.append(tuple(row))
    caption = (
        f"Each model less {baseline}, in points of per cent, with 95 % intervals: paired bootstrap over problems. Bold: the "
        "interval does not hold 0. One training seed each: the intervals say nothing of other seeds."
    )
    return Table("differences", f"Differences from {baseline}", caption, ("Benchmark", "Metric", *others), tuple(rows))


def gains_table(rows: Sequence[GainRow]) -> Table:
    """The gains of every model's newest weights, in problems."""
    last = {row.model: row.step for row in rows}
    names = ("unsolved", "progress", "distillation", "capability", "regression", "net")
    lines = [
        (
            Cell(row.model),
            Cell(row.benchmark),
            Cell(f"{row.trials.k} (absolute)" if row.absolute else str(row.trials.k)),
            Cell(str(row.problems)),
            *(Cell(_estimate(getattr(row.trials, name))) for name in names),
        )
        for row in rows
        if row.step in (None, last[row.model])
    ]
    caption = (
        "Equations 1 and 2 in problems: mean of 10 trials ± standard error. Unsolved: wrong at pass@1 before training; "
        "self-distillation: of those, solved after, and within k samples before; capability gain: solved after, not within k "
        "samples before. Absolute k: the first whose sample adds less than 1 % to the untrained policy's pass@k, where "
        "its samples reach that. The standard error is of the draws from the pool of rollouts only."
    )
    header = (
        "Model",
        "Benchmark",
        "k",
        "Problems",
        "Unsolved",
        "Progress",
        "Self-distillation",
        "Capability gain",
        "Regression",
        "Net reward",
    )
    return Table("gains", "Gains", caption, header, tuple(lines), heads=3)


def _estimate(found: Estimate) -> str:
    return f"{found.mean:.1f} ± {found.standard_error:.1f}"


def answers_table(runs: Iterable[Run]) -> Table:
    """Of each evaluation run's rollouts, those that were truncated, ungradable or empty, in per cent."""
    names = ("correct", "wrong", "truncated", "ungradable", "empty")
    lines = []
    for run in runs:
        for setting, counts in run.outcomes.items():
            total = sum(counts.values())
            kind = ("greedy" if setting.greedy else "sampled") + (", guided" if setting.guided else "")
            model = setting.model if setting.step is None else f"{setting.model}, step {setting.step}"
            shares = (Cell(_per_cent(counts.get(name, 0) / total)) for name in names)
            lines.append((Cell(model), Cell(setting.benchmark), Cell(kind), Cell(f"{total:,}"), *shares))
    header = ("Model", "Benchmark", "Sampling", "Rollouts", *(name.capitalize() for name in names))
    return Table("answers", "What became of the rollouts", "Per cent of rollouts.", header, tuple(lines), heads=3)
