"""The run folder of an evaluation: what was sampled, written as it arrives.

RUN/recipe.yaml        the recipe as resolved, with all models and benchmarks that were ever asked for
RUN/versions.json      versions, and digests of the files that the results follow from
RUN/problems.jsonl     one line a problem; "set" is its benchmark
RUN/rollouts.jsonl     one line a rollout
RUN/results.jsonl      one line for each setting of each problem, after its rollouts: it says that they are whole
RUN/cache/             replies of a server (sampler chat)
"""

import json
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from guide_rl.evaluation import Setting
from guide_rl.evaluation.models import EvaluatedModel
from guide_rl.evaluation.outcomes import OUTCOMES, outcome
from guide_rl.run_folder import RunFolder, problem_line, rollout_line, versions
from guide_rl.types import Group, Problem

LINES = ("problems.jsonl", "rollouts.jsonl", "results.jsonl")
MAY_GROW = ("models", "benchmarks")
MAY_CHANGE = (
    "run",
    "k",
    "batch_size",
    "model.device",
    "vllm",
    "grading.workers",
    "grading.timeout_s",
    "grading.memory_mb",
)
"""What fits a run to its machine, and what is shown of it; with these, how a server is asked (chat)."""
CHAT_MAY_NOT_CHANGE = ("chat.parameters", "chat.model", "chat.temperature", "chat.max_tokens")

Key = tuple[str, int | None, str, float, bool, str]
"""Names a line of results: model, step, benchmark, temperature, guided, problem id."""


def key_of(row: Mapping[str, Any]) -> Key:
    """The key of a line of results.jsonl, or of the results that a line of rollouts.jsonl belongs to."""
    return row["model"], row["step"], row["benchmark"], row["temperature"], row["guided"], row["problem_id"]


class EvaluationFolder:
    """A run folder that this process has for itself."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.done: set[Key] = set()
        """Keys of the lines of results.jsonl."""
        self._known: set[tuple[str, str]] = set()

    @classmethod
    @contextmanager
    def opened(
        cls, path: str, recipe_yaml: str, inputs: Mapping[str, str | None], *, again: bool
    ) -> Iterator["EvaluationFolder"]:
        """A new folder, or one to go on with.

        Args:
            path: where.
            recipe_yaml: the recipe as resolved.
            inputs: field of the recipe -> a digest of what it names; None where nothing can be said.
            again: forget what the folder holds.

        Raises:
            FileExistsError: it holds something else.
            ValueError: the recipe differs in more than may change, or an input has changed; names the field.
            BlockingIOError: another process is working on it.
        """
        run = RunFolder(path)
        if run.path.exists() and not run.path.is_dir():
            raise FileExistsError(f"{run.path} is a file; give another folder (run=...)")
        _refuse_other_runs(run)
        run.path.mkdir(parents=True, exist_ok=True)
        with run.lock():
            folder = cls(run)
            if again:
                folder._forget()
            folder._begin(recipe_yaml, inputs)
            folder._read()
            yield folder

    def add_problems(self, benchmark: str, problems: Sequence[Problem]) -> None:
        """Write down the problems of a benchmark that are not there yet."""
        new = [problem for problem in problems if (benchmark, problem.id) not in self._known]
        self.run.append("problems.jsonl", [problem_line(benchmark, problem) for problem in new])
        self._known |= {(benchmark, problem.id) for problem in new}

    def add(self, model: EvaluatedModel, benchmark: str, setting: Setting, group: Group) -> dict[str, Any]:
        """Write down a problem's rollouts and then, in one line, its results, which are returned."""
        what = {"model": model.name, "step": model.step, "benchmark": benchmark}
        pairs = list(zip(group.rollouts, group.grades, strict=True))
        self.run.append(
            "rollouts.jsonl",
            [
                what | {"temperature": setting.temperature} | rollout_line(group.problem, rollout, grade)
                for rollout, grade in pairs
            ],
        )
        counts = Counter(outcome(group.problem, rollout, grade) for rollout, grade in pairs)
        result = what | {
            "temperature": setting.temperature,
            "guided": setting.guided,
            "problem_id": group.problem.id,
            "stratum": group.problem.stratum,
            "correct": [int(grade.correct) for _, grade in pairs],
            "outcomes": {name: counts[name] for name in OUTCOMES},
            "tokens": sum(rollout.tokens for rollout, _ in pairs),
        }
        self.run.append("results.jsonl", [result])
        self.done.add(key_of(result))
        return result

    def results(self, models: Sequence[EvaluatedModel]) -> list[dict[str, Any]]:
        """The lines of results.jsonl about these models."""
        wanted = {(model.name, model.step) for model in models}
        return [row for row in self.run.rows("results.jsonl") if (row["model"], row["step"]) in wanted]

    def _begin(self, recipe_yaml: str, inputs: Mapping[str, str | None]) -> None:
        """Write recipe and digests, after those that are there have been compared."""
        known: dict[str, str | None] = {}
        if (self.run.path / "recipe.yaml").is_file():
            changed = [
                f"{key}: {what}" for key, what in self.run.changes(recipe_yaml).items() if not _may_change(key, what)
            ]
            if changed:
                raise ValueError(
                    f"{self.run.path} was started with another recipe ({'; '.join(changed)}). Give it another folder "
                    "(run=...), or measure everything anew (--again)"
                )
            known = json.loads((self.run.path / "versions.json").read_text(encoding="utf-8"))["files"]
            for name, digest in inputs.items():
                if name in known and known[name] != digest:
                    raise ValueError(
                        f"{name} has changed since {self.run.path} measured it; restore it, give it another name, or "
                        "measure everything anew (--again)"
                    )
            old, new = self.run.recipe(), yaml.safe_load(recipe_yaml)
            grown = new | {section: old[section] | new[section] for section in MAY_GROW}
            recipe_yaml = yaml.safe_dump(grown, sort_keys=False, allow_unicode=True)
        self.run.write("versions.json", json.dumps(versions() | {"files": known | dict(inputs)}, indent=2) + "\n")
        self.run.write_recipe(recipe_yaml)

    def _read(self) -> None:
        """Take what is there, and cut off what a kill left half done."""
        for name in ("problems.jsonl", "results.jsonl"):
            _cut(self.run.path / name, lambda line: True)
        self.done = {key_of(row) for row in self.run.rows("results.jsonl")}
        _cut(self.run.path / "rollouts.jsonl", lambda line: key_of(line) in self.done)
        self._known = {(row["set"], row["id"]) for row in self.run.rows("problems.jsonl")}

    def _forget(self) -> None:
        """Remove what was measured."""
        for name in (*LINES, "recipe.yaml", "versions.json"):
            (self.run.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.run.path / "cache", ignore_errors=True)


def _refuse_other_runs(run: RunFolder) -> None:
    """FileExistsError where the folder holds something that is no evaluation."""
    other = [name for name in ("metrics.jsonl", "checkpoints", "model", "summary.json") if (run.path / name).exists()]
    recipe = run.path / "recipe.yaml"
    if not other and recipe.is_file() and "\nbenchmarks:" not in recipe.read_text(encoding="utf-8"):
        other = ["recipe.yaml"]
    if not other and not recipe.is_file():
        other = [name for name in LINES if (run.path / name).exists()]
    if other:
        raise FileExistsError(
            f"{run.path} holds {other[0]}, which is not an evaluation's; give another folder (run=...)"
        )


def _may_change(key: str, what: str) -> bool:
    """Whether a difference in a field of the recipe leaves the results what they are."""
    section = key.partition(".")[0]
    if section in MAY_GROW:
        return what.startswith("None -> ") or what.endswith(" -> None")
    if section == "chat":
        return not key.startswith(CHAT_MAY_NOT_CHANGE)
    return key in MAY_CHANGE or section in MAY_CHANGE


def _cut(path: Path, whole: Any) -> None:
    """Cut lines off the end of a file until the last one is a JSON object for which `whole` holds."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = data.rfind(b"\n") + 1
            while end:
                start = data.rfind(b"\n", 0, end - 1) + 1
                if _holds(data[start:end], whole):
                    break
                end = start
            length = len(data)
        if end < length:
            os.truncate(file.fileno(), end)


def _holds(line: bytes, whole: Any) -> bool:
    """Whether a line is a JSON object for which `whole` holds."""
    try:
        row = json.loads(line)
        return isinstance(row, dict) and bool(whole(row))
    except (ValueError, KeyError):
        return False
