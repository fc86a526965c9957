"""`guide report`: run folders -> tables, figures and one page.

OUT/index.html                           everything on one page that needs no network, with a browser of rollouts
OUT/{results,averages,...}.{md,tex,csv}  the tables (`analysis.tables`)
OUT/figure_*.{png,svg}                   the figures (`analysis.figures`)
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

from guide_rl.analysis.figures import Drawn, gains_figure, guided_figure, reward_figure, save, training_figure
from guide_rl.analysis.gains import GainRow, gain_rows
from guide_rl.analysis.metric_help import help_for
from guide_rl.analysis.page import LONG, SHORT, write_page
from guide_rl.analysis.run_data import Measured, Run, named_runs, rollouts
from guide_rl.analysis.table_files import WRITERS, Table
from guide_rl.analysis.tables import answers_table, chosen_k, differences_table, gains_table, results_table
from guide_rl.atomic_files import put_text

Note = Callable[[str], None]


@dataclass(frozen=True)
class ReportOptions:
    """What `guide report` is asked for."""

    out: Path = Path("report")
    """The folder to write."""
    k: int | None = None
    """The k of pass@k; None: the largest power of two up to 16 that every model has rollouts for."""
    base: str | None = None
    """The untrained policy, NAME or NAME@STEP, for gains and differences; None: a model named base, else each one's step 0."""
    common: bool = False
    """Compare the problems that all models have, where they have different ones."""
    reload_s: float | None = None
    """Let the page load itself anew every so many seconds."""
    page_rollouts: int = 50_000
    """Rollouts on the page at most; where there are more, all rollouts of some problems are shown."""


def report(arguments: Sequence[str], options: ReportOptions, note: Note = lambda text: None) -> Path:
    """Write a report on runs (RUN or NAME=RUN each); returns its page.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: runs cannot be compared, k is too large, or a file of a run is malformed; says what to do.
    """
    if (options.out / "recipe.yaml").exists():
        raise ValueError(f"{options.out} holds a run; give the report another folder (--out)")
    note(f"reading {', '.join(arguments)}")
    runs = named_runs(arguments)
    measured = Measured(runs, common=options.common)
    k = chosen_k(measured, options.k)
    base = chosen_base(measured, options.base)
    if base and base[1] != measured.last(base[0]):
        base = measured.set_apart(*base)
    gains = gain_rows(measured, k, base=base)
    tables = all_tables(runs, measured, gains, k, base)
    options.out.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "title": ", ".join(dict.fromkeys(run.name for run in runs)),
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    data["reload_s"] = options.reload_s
    data["tables"] = [_page_table(table, options.out) for table in tables]
    note("drawing figures")
    data["figures"] = [_page_figure(drawn, options.out) for drawn in all_figures(runs, measured, gains, k)]
    data["runs"] = [_page_run(run) for run in runs]
    data["metric_help"] = {key: help_for(key) for run in data["runs"] for key in run["metrics"]}
    note("collecting rollouts")
    data |= page_rollouts(runs, options.page_rollouts, notes := [*measured.notes])
    data["notes"] = [*dict.fromkeys(n for run in runs for n in run.notes), *notes]
    data["summary"] = summary(runs, measured, k)
    for text in data["notes"]:
        note(text)
    page = options.out / "index.html"
    write_page(page, data)
    return page


def watch(
    arguments: Sequence[str], options: ReportOptions, note: Note = lambda text: None, *, every_s: float = 10.0
) -> None:
    """Write the report again whenever a run has grown, until Ctrl-C; waits for runs that have not begun."""
    before: object = None
    options = replace(options, reload_s=3 * every_s, common=True)  # an evaluation that goes on is whole nowhere
    while True:
        files = [file for a in arguments for file in _watched(a)]
        now = [(file, _size(file)) for file in files]
        if now != before:
            before = now
            try:
                note(f"{datetime.now():%H:%M:%S} {report(arguments, options)}")
            except (OSError, ValueError) as error:
                note(f"{datetime.now():%H:%M:%S} waiting: {error}")
        time.sleep(every_s)


def _size(file: Path) -> int | None:
    """In bytes; None where there is none, or none that can be read."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def _watched(argument: str) -> list[Path]:
    """The files that grow while a run works."""
    folder = Path(argument if Path(argument).exists() else argument.rpartition("=")[2])
    return [folder / name for name in ("metrics.jsonl", "rollouts.jsonl", "held_out.jsonl", "results.jsonl")]


def chosen_base(measured: Measured, wish: str | None) -> tuple[str, int | None] | None:
    """The untrained policy as model and step; None where each model's own step 0 is meant.

    Raises ValueError when the wish was not measured.
    """
    if wish is None:
        return ("base", measured.last("base")) if "base" in measured.models else None
    name, _, step = wish.rpartition("@")
    if not name or not step.isdecimal():
        name, step = wish, ""
    if name not in measured.models:
        raise ValueError(f"--base {wish}: no such model; there are {', '.join(measured.models) or 'none'}")
    if step and int(step) not in measured.steps(name):
        raise ValueError(
            f"--base {wish}: not measured at that step; there are {', '.join(map(str, measured.steps(name)))}"
        )
    return name, int(step) if step else measured.last(name)


def all_tables(
    runs: Sequence[Run], measured: Measured, gains: Sequence[GainRow], k: int, base: tuple[str, int | None] | None
) -> list[Table]:
    """Every table that the runs have the numbers for."""
    if not measured.models:
        return []
    tables = [results_table(measured, k), results_table(measured, k, "intervals")]
    if len(measured.models) > 1:
        first = base[0] if base else measured.models[0]
        tables.append(differences_table(measured, k, first))
    tables += [results_table(measured, k, "averages"), results_table(measured, k, "paper")]
    if gains:
        tables.append(gains_table(gains))
    tables.append(answers_table(runs))
    return [table for table in tables if table.rows]


def all_figures(runs: Sequence[Run], measured: Measured, gains: Sequence[GainRow], k: int) -> list[Drawn]:
    """Every figure that the runs have the numbers for."""
    training: dict[str, list[Run]] = {}
    for run in runs:
        if run.metrics:
            training.setdefault(run.name, []).append(run)
    problems = " and ".join(name for name in measured.benchmarks if "/" not in name)
    figures = [gains_figure(gains, k, problems)] if gains else []
    figures += [guided_figure(measured, model, k) for model in measured.models]
    figures += [training_figure(training), reward_figure(training)] if training else []
    return [figure for figure in figures if figure is not None]


def summary(runs: Sequence[Run], measured: Measured, k: int) -> list[str]:
    """What was read, in a few lines."""
    trained, evaluated = (sum(run.kind == kind for run in runs) for kind in ("train", "evaluation"))
    lines = [
        ", ".join(
            f"{n} {what} run{'s' * (n > 1)}" for n, what in ((trained, "training"), (evaluated, "evaluation")) if n
        )
    ]
    for run in runs:
        if run.kind == "train":
            done = max((row["step"] for row in run.metrics), default=0)
            steps = run.recipe.get("steps")
            of = f" of {steps:,}" if isinstance(steps, int) else ""
            lines.append(f"{run.name}: step {done:,}{of}, {run.path}")
        else:
            lines.append(f"{run.name}: {run.path}")
    if measured.models:
        sets = [name for name in measured.benchmarks if "/" not in name]
        sizes = [len(problems) for name in sets if (problems := _problem_ids(measured, name))]
        lines.append(f"benchmarks: {', '.join(sets)} ({' + '.join(map(str, sizes))} problems); pass@k with k = {k}")
    return lines


def _problem_ids(measured: Measured, benchmark: str) -> list[str]:
    """The problems on which a benchmark's models are compared."""
    for model in measured.models:
        for greedy in (True, False):
            if ids := measured.problem_ids(model, benchmark, greedy=greedy, step=measured.last(model, benchmark)):
                return ids
    return []


# ---------------------------------------------------------------------- the page's data


def _page_table(table: Table, out: Path) -> dict[str, Any]:
    """Write a table's files; what the page shows of it."""
    names = [f"{table.name}.{suffix}" for suffix in WRITERS]
    for name, write in zip(names, WRITERS.values(), strict=True):
        put_text(out / name, write(table))
    rows = [
        [{"text": cell.text, "best": cell.best, "head": i < table.heads} for i, cell in enumerate(row)]
        for row in table.rows
    ]
    return {"title": table.title, "caption": table.caption, "header": list(table.header), "rows": rows, "files": names}


def _page_figure(drawn: Drawn, out: Path) -> dict[str, Any]:
    """Write a figure's files; what the page shows of it."""
    names = save(drawn, out)
    svg = (out / names[1]).read_text(encoding="utf-8")
    return {"title": drawn.title, "caption": drawn.caption, "svg": svg[svg.index("<svg") :], "files": names}


def _page_run(run: Run) -> dict[str, Any]:
    """A run's recipe and curves."""
    metrics: dict[str, dict[str, list[float]]] = {}
    for row in run.metrics:
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float):
                curve = metrics.setdefault(key, {"x": [], "y": []})
                curve["x"].append(row["step"])
                curve["y"].append(value)
    return {"name": run.name, "kind": run.kind, "recipe": run.recipe_yaml, "metrics": metrics}


_COLUMNS = tuple(name for name in (*SHORT, *chain(*LONG.values())) if name != "problem")


def page_rollouts(runs: Sequence[Run], most: int, notes: list[str]) -> dict[str, Any]:
    """The problems and rollouts of all runs, as columns; at most so many rollouts, whole problems of every run alike."""
    counts: dict[tuple[int, str, str], int] = {}
    for number, run in enumerate(runs):
        for row in rollouts(run):
            key = number, row["set"], row["problem_id"]
            counts[key] = counts.get(key, 0) + 1
    chosen = _chosen_problems(counts, most)
    if len(chosen) < len(counts):
        notes.append(
            f"the page shows {len(chosen):,} of {len(counts):,} problems with their rollouts; --page-rollouts sets the limit"
        )
    problems: list[dict[str, Any]] = []
    place: dict[tuple[int, str, str], int] = {}
    columns: dict[str, list[Any]] = {"problem": [], **{name: [] for name in _COLUMNS}}
    for number, run in enumerate(runs):
        for row in rollouts(run):
            key = number, row["set"], row["problem_id"]
            if key not in chosen:
                continue
            if key not in place:
                place[key] = len(problems)
                problems.append(_page_problem(number, run, row))
            columns["problem"].append(place[key])
            for name in _COLUMNS:
                value = row.get(name)
                columns[name].append(int(value) if isinstance(value, bool) else value)
    return {"problems": problems, "rollouts": columns}


def _chosen_problems(counts: Mapping[tuple[int, str, str], int], most: int) -> set[tuple[int, str, str]]:
    """Problems whose rollouts fit the limit: the same ones of every run, in an order that no run prefers."""
    if sum(counts.values()) <= most:
        return set(counts)
    by_problem: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    for key in counts:
        by_problem.setdefault(key[1:], []).append(key)
    chosen: set[tuple[int, str, str]] = set()
    for problem in sorted(
        by_problem, key=lambda problem: blake2b("\0".join(problem).encode(errors="replace")).digest()
    ):
        cost = sum(counts[key] for key in by_problem[problem])
        if cost <= most:
            most -= cost
            chosen |= set(by_problem[problem])
    return chosen


def _page_problem(number: int, run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a problem."""
    known = run.problems.get((row["set"], row["problem_id"]), {})
    fields = {name: known.get(name, "") for name in ("question", "answer", "stratum")}
    return {"run": number, "set": row["set"], "id": row["problem_id"], "guidance": known.get("guidance"), **fields}
