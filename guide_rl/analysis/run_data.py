"""Run folders -> what tables, figures and the page are made of. Reads training runs and evaluation runs alike.

A run that is still being written can be read: a half-written last line is left out, and said.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

HELD_OUT = "held-out"
"""The benchmark that a training run's own evaluations are."""
ABOUT = ("step", "temperature", "guided", "problem_id", "correct")
"""Fields of every line of results."""
KINDS = {"step": int | None, "id": str, "problem_id": str, "set": str, "benchmark": str, "model": str, "text": str}
"""Types of fields by which lines of several files are told apart, and of texts."""


@dataclass(frozen=True)
class Setting:
    """What was measured: every rollout of a model on a benchmark under one temperature, with or without guidance."""

    model: str
    step: int | None
    """The training step of the weights; None where nothing is known of it."""
    benchmark: str
    greedy: bool
    guided: bool = False


@dataclass
class Run:
    """What a run folder holds."""

    name: str
    path: Path
    kind: Literal["train", "evaluation"]
    recipe_yaml: str
    recipe: Mapping[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.jsonl; none in an evaluation run."""
    problems: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(set, id) -> a row of problems.jsonl."""
    correct: dict[Setting, dict[str, tuple[bool, ...]]] = field(default_factory=dict)
    """Setting -> problem id -> which of its rollouts are correct."""
    outcomes: dict[Setting, dict[str, int]] = field(default_factory=dict)
    """Setting -> how many rollouts were correct, wrong, truncated, ungradable, empty; in an evaluation run."""
    notes: list[str] = field(default_factory=list)
    """What was left out while reading."""

    def question(self, benchmark: str, problem_id: str) -> str:
        """A problem's question; "" where the run did not write it."""
        return str(self.problems.get((benchmark.partition("/")[0], problem_id), {}).get("question", ""))


def read_run(path: str | Path, name: str = "") -> Run:
    """Read one run folder, without its rollouts (`rollouts` reads those).

    Args:
        path: the run folder.
        name: what tables and curves call it; the folder's name by default.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: its recipe, or a line of one of its files, is malformed; names the file and the line.
    """
    path = Path(path).expanduser()
    recipe_file = path / "recipe.yaml"
    if not recipe_file.is_file():
        raise FileNotFoundError(
            f"{path} holds no run (no recipe.yaml); name a folder that guide train or guide evaluate made"
        )
    text = recipe_file.read_text(encoding="utf-8", errors="replace")
    try:
        recipe = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{recipe_file}: {' '.join(str(error).split())}; restore it") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{recipe_file} holds no recipe; restore it")
    kind: Literal["train", "evaluation"] = "evaluation" if "benchmarks" in recipe else "train"
    run = Run(name or path.resolve().name, path, kind, text, recipe)
    run.metrics = list(read_lines(path / "metrics.jsonl", run.notes, ("step",)))
    problems = read_lines(path / "problems.jsonl", run.notes, ("set", "id"))
    run.problems = {(row["set"], row["id"]): row for row in problems}
    if kind == "evaluation":
        _read_results(run)
    else:
        _read_held_out(run)
    return run


def read_lines(path: Path, notes: list[str], needed: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines file; none where it does not exist. A half-written last line is left out and noted.

    Raises ValueError, with file and line, for any other line that is no JSON object with the needed fields.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.decode(errors="replace"))
                if not isinstance(row, dict):
                    raise ValueError("no JSON object")
                if missing := [name for name in needed if name not in row]:
                    raise ValueError(f"no field {missing[0]!r}")
                if wrong := [name for name in needed if not isinstance(row[name], KINDS.get(name, object))]:
                    raise ValueError(f"field {wrong[0]!r} is {row[wrong[0]]!r:.40}")
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    notes.append(f"{path}: its last line is half written and was left out")
                    return
                if not line.strip():
                    continue
                raise ValueError(f"{path}, line {number}: {error}; correct or remove this line") from None
            yield row


def rollouts(run: Run) -> Iterator[dict[str, Any]]:
    """Every rollout of a run as a row, with `set` (train, held-out, a benchmark), `model`, `step` and `greedy`."""
    for row in read_lines(run.path / "rollouts.jsonl", run.notes, ("problem_id", "step", "text")):
        greedy = row.get("temperature") == 0.0
        yield {"set": "train", "model": ""} | row | {"greedy": greedy} | _set_of(row)
    for row in read_lines(run.path / "held_out.jsonl", run.notes, (*ABOUT, "text")):
        yield {"set": HELD_OUT, "model": ""} | row | {"greedy": row["temperature"] == 0.0}


def _set_of(row: Mapping[str, Any]) -> dict[str, str]:
    """An evaluation's rollouts belong to their benchmark."""
    return {"set": row["benchmark"]} if "benchmark" in row else {}


def _read_results(run: Run) -> None:
    """An evaluation run's results.jsonl."""
    correct: defaultdict[Setting, dict[str, tuple[bool, ...]]] = defaultdict(dict)
    outcomes: defaultdict[Setting, dict[str, int]] = defaultdict(dict)
    for row in read_lines(run.path / "results.jsonl", run.notes, (*ABOUT, "model", "benchmark", "outcomes")):
        setting = Setting(row["model"], row["step"], row["benchmark"], row["temperature"] == 0.0, row["guided"])
        correct[setting][row["problem_id"]] = tuple(map(bool, row["correct"]))
        counts = outcomes[setting]
        for outcome, count in row["outcomes"].items():
            counts[outcome] = counts.get(outcome, 0) + count
    run.correct, run.outcomes = dict(correct), dict(outcomes)


def _read_held_out(run: Run) -> None:
    """A training run's held_out.jsonl: all held-out problems as one benchmark, and each stratum as one."""
    found: defaultdict[Setting, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    sizes: Counter[int] = Counter()
    for row in read_lines(run.path / "held_out.jsonl", run.notes, (*ABOUT, "stratum")):
        sizes[row["step"]] += 1
        names = [HELD_OUT] + [f"{HELD_OUT}/{row['stratum']}"] * bool(row["stratum"])
        for name in names:
            setting = Setting(run.name, row["step"], name, row["temperature"] == 0.0, row["guided"])
            found[setting][row["problem_id"]].append(bool(row["correct"]))
    *_, before, last = (None, None, *sizes)
    cut_off = before is not None and last is not None and sizes[last] < sizes[before]
    if cut_off:
        run.notes.append(
            f"{run.path}/held_out.jsonl: the evaluation at step {last} is not whole and was left out of tables and figures"
        )
    run.correct = {
        setting: {problem: tuple(values) for problem, values in problems.items()}
        for setting, problems in found.items()
        if not (cut_off and setting.step == last)
    }


# ---------------------------------------------------------------------- several runs together


class Measured:
    """The rollouts of several runs, by model, step and benchmark, over the same problems.

    Args:
        runs: the runs; a model that two of them measured on the same benchmark is an error.
        common: compare only the problems that all models have, instead of refusing models with others.

    Raises:
        ValueError: models were measured on different problems (names them); two runs measured the same.
    """

    def __init__(self, runs: Sequence[Run], *, common: bool = False) -> None:
        self._correct: dict[Setting, dict[str, tuple[bool, ...]]] = {}
        self.notes = _unlike([run for run in runs if run.kind == "evaluation"])
        origin: dict[Setting, Run] = {}
        for run in runs:
            for setting, problems in run.correct.items():
                if setting in origin:
                    raise ValueError(
                        f"{run.path} and {origin[setting].path} both measured {setting.model} on {setting.benchmark}; "
                        "leave one out, or name them differently (NAME=RUN)"
                    )
                origin[setting] = run
                self._correct[setting] = problems
        self._keep_common(origin, common)

    def _keep_common(self, origin: Mapping[Setting, Run], common: bool) -> None:
        """Let every setting of a benchmark hold the same problems, in one order."""
        for benchmark in self.benchmarks:
            settings = [s for s in self._correct if s.benchmark == benchmark and not s.guided]
            complete = [self._correct[s] for s in settings]
            shared = [
                problem
                for problem in complete[0]
                if all(problem in problems for problems in complete)
                and len({origin[s].question(benchmark, problem) for s in settings}) == 1
            ]
            differing = sorted({problem for problems in complete for problem in problems} - set(shared))
            if differing:
                some = ", ".join(map(repr, differing[:3]))
                told = f"{benchmark}: {len(differing)} problems are not the same for all models, such as {some}"
                if not common:
                    whole = "; ".join(sorted({f"{s.model} has {len(self._correct[s])}" for s in settings}))
                    raise ValueError(
                        f"{told} ({whole}); finish the evaluation, or compare the {len(shared)} common ones with --common"
                    )
                self.notes.append(f"{told}; the {len(shared)} common ones are compared")
            if not shared:
                raise ValueError(f"{benchmark}: the models have no problem in common; report them apart")
            for setting in settings:
                self._correct[setting] = {problem: self._correct[setting][problem] for problem in shared}

    @property
    def benchmarks(self) -> list[str]:
        """In the order in which they were first measured; strata after their whole."""
        return list(dict.fromkeys(setting.benchmark for setting in self._correct))

    @property
    def models(self) -> list[str]:
        """In the order in which they were first measured."""
        return list(dict.fromkeys(setting.model for setting in self._correct))

    def steps(self, model: str) -> list[int]:
        """The training steps at which a model was measured, in order."""
        return sorted({s.step for s in self._correct if s.model == model and s.step is not None})

    def last(self, model: str, benchmark: str = "") -> int | None:
        """The step of a model's newest weights; None where none is known, at all or of any measured on the benchmark.

        A run's final model has no step and its checkpoints do: one name may stand for both, on different benchmarks.
        """
        steps = {s.step for s in self._correct if s.model == model and s.benchmark == benchmark}
        return None if steps == {None} else max(self.steps(model), default=None)

    def set_apart(self, model: str, step: int | None) -> tuple[str, int | None]:
        """Make a model's weights at one step a model of their own, the first, called MODEL@STEP; returns its name and step."""
        name = f"{model}@{step}"
        apart = {s: found for s, found in self._correct.items() if (s.model, s.step) == (model, step)}
        others = {s: found for s, found in self._correct.items() if s not in apart}
        self._correct = {replace(s, model=name): found for s, found in apart.items()} | others
        return name, step

    def matrix(
        self, model: str, benchmark: str, *, greedy: bool, guided: bool = False, step: int | None = None
    ) -> np.ndarray | None:
        """Which rollouts are correct: [P, N] bool, in the benchmark's order of problems; None where nothing was measured.

        Problems with more rollouts than others are cut to the fewest.
        """
        problems = self._correct.get(Setting(model, step, benchmark, greedy, guided))
        if not problems:
            return None
        fewest = min(map(len, problems.values()))
        return np.array([values[:fewest] for values in problems.values()], dtype=bool)

    def problem_ids(
        self, model: str, benchmark: str, *, greedy: bool, guided: bool = False, step: int | None = None
    ) -> list[str]:
        """The problems of `matrix`, in its order."""
        return list(self._correct.get(Setting(model, step, benchmark, greedy, guided), {}))


def _unlike(evaluations: Sequence[Run]) -> list[str]:
    """Notes on settings in which evaluations differ, so that their numbers are not of models alone."""
    told = []
    for name in ("temperature", "top_p", "top_k", "max_tokens", "stop", "prompts"):
        values = {run.name: run.recipe.get(name) for run in evaluations}
        if any(value != other for value, other in pairwise(values.values())):
            told.append(f"{name} differs: " + ", ".join(f"{run} has {value}" for run, value in values.items()))
    return told


def named_runs(arguments: Sequence[str]) -> list[Run]:
    """Read runs from what was typed: RUN or NAME=RUN.

    Without a name a run has its folder's, with the folder above in front where two would be the same. A NAME that repeats
    means training seeds of one method: curves are averaged over them, and their evaluations stay apart. The models of an
    evaluation run have their own names; a NAME stands in front of them, or for the only one.

    Raises FileNotFoundError and ValueError as `read_run`.
    """
    pairs = [a.partition("=")[::2] if "=" in a and not Path(a).exists() else ("", a) for a in arguments]
    paths = [Path(path).expanduser().resolve() for _, path in pairs]
    folders = Counter(path.name for path in paths)
    runs = []
    seen: Counter[str] = Counter()
    for (name, argument), path in zip(pairs, paths, strict=True):
        own = path.name if folders[path.name] == 1 else f"{path.parent.name}/{path.name}"
        run = read_run(argument, name or own)
        seen[run.name] += 1
        names = {setting.model: setting.model for setting in run.correct}
        if run.kind == "evaluation" and name:
            names = dict.fromkeys(names, name) if len(names) == 1 else {model: f"{name}: {model}" for model in names}
        if seen[run.name] > 1 and (name or run.kind == "train"):
            names = {model: f"{called} ({seen[run.name]})" for model, called in names.items()}
        run.correct = {replace(s, model=names[s.model]): found for s, found in run.correct.items()}
        run.outcomes = {replace(s, model=names[s.model]): found for s, found in run.outcomes.items()}
        runs.append(run)
    return runs
