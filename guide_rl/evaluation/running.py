"""`guide evaluate`: models x benchmarks x settings -> a run folder and a table; what is there is not measured again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from guide_rl.config import EvaluateRecipe
from guide_rl.evaluation import Setting, sample_setting
from guide_rl.evaluation.benchmarks import Benchmark, load_benchmark
from guide_rl.evaluation.folder import EvaluationFolder, Key
from guide_rl.evaluation.models import EvaluatedModel, find_models
from guide_rl.evaluation.sampling import WAYS, Asked, Models, without_guidance
from guide_rl.evaluation.table import print_table
from guide_rl.graders.pool import GraderPool
from guide_rl.interrupts import Interrupts
from guide_rl.progress import Progress
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import RunFolder, content_digest
from guide_rl.types import Problem

SHOWN = {"rate": "{:,.1f} rollouts/s", "correct": "{:.1%} correct", "truncated": "{:.0%} truncated"}


@dataclass(frozen=True)
class Work:
    """Problems that a model is to be asked in one setting."""

    benchmark: str
    setting: Setting
    problems: tuple[Problem, ...]

    @property
    def rollouts(self) -> int:
        """How many it takes."""
        return len(self.problems) * self.setting.rollouts


def evaluate_models(recipe: EvaluateRecipe, *, again: bool = False, console: Console | None = None) -> RunFolder:
    """Measure what the run folder does not hold yet, and print the table.

    Args:
        recipe: what to do.
        again: forget what the folder holds first.
        console: where progress goes; standard error by default. The table goes to standard output.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM; the same recipe goes on.
        ValueError, OSError, MemoryError: what cannot be done, before anything is sampled where that can be seen.
    """
    grading, console = recipe.grading, console or Console(stderr=True)
    with Interrupts() as interrupts:
        models, ways = find_models(recipe), WAYS[recipe.sampler](recipe)
        say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
        benchmarks = [load_benchmark(name, path, say) for name, path in recipe.benchmarks.items()]
        with (
            Progress(1, label="evaluate", shown=SHOWN, console=console) as progress,
            GraderPool.of(grading, progress.note) as grader,
        ):
            asked = _checked(recipe, ways, models, benchmarks, progress)
            if code := [p for benchmark in benchmarks for p in benchmark.problems if p.grader == "unit_tests"]:
                grader.check(code[0])
                grader.warm_up()  # Where no sandbox starts, nothing is sampled.
            inputs = _inputs(recipe, benchmarks, asked)
            with EvaluationFolder.opened(recipe.run, write_recipe(recipe), inputs, again=again) as folder:
                for benchmark in benchmarks:
                    folder.add_problems(benchmark.name, benchmark.problems)
                Evaluator(recipe, folder, progress, grader, interrupts).run(ways, asked)
                results = folder.results(models)
    print_table(recipe, models, results)
    return folder.run


def settings_of(recipe: EvaluateRecipe) -> list[Setting]:
    """What is sampled of every problem."""
    settings = [
        Setting(0.0, recipe.runs_of_greedy),
        Setting(recipe.temperature, recipe.samples),
        Setting(recipe.temperature, recipe.samples if recipe.guided else 0, guided=True),
    ]
    return [setting for setting in settings if setting.rollouts]


class Evaluator:
    """Does what is left to do, one model after the other."""

    def __init__(
        self,
        recipe: EvaluateRecipe,
        folder: EvaluationFolder,
        progress: Progress,
        grader: GraderPool,
        interrupts: Interrupts,
    ) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.grader, self.interrupts = grader, interrupts
        self.done = self.rollouts = self.tokens = self.correct = self.truncated = 0
        self.failed: list[str] = []
        self._started, self._due = time.monotonic(), 0.0

    def run(self, ways: Models, asked: dict[EvaluatedModel, Asked]) -> None:
        """Sample, grade and write down.

        Raises:
            ConnectionError: a server gave no answer to some requests; all others are written down.
        """
        plan = {model: self._left(model, asked[model]) for model in asked}
        left = sum(work.rollouts for works in plan.values() for work in works)
        whole = sum(
            len(_of_setting(problems, setting)) * setting.rollouts
            for known in asked.values()
            for problems in known.problems.values()
            for setting in settings_of(self.recipe)
        )
        if not left:
            self.progress.note(f"{self.folder.run.path}: all is there, nothing to do (--again measures it anew)")
            return
        self.done, self.progress.total = whole - left, whole
        self.progress.resumed_at(self.done)
        if self.done:
            self.progress.note(f"{self.folder.run.path}: going on, {self.done:,} of {whole:,} rollouts are there")
        self._started = time.monotonic()
        self._due = self._started + 3
        try:
            for model, works in plan.items():
                if works:
                    self._measure(ways, model, works)
        except (KeyboardInterrupt, OSError, MemoryError):
            self.progress.note(f"stopped at {self.done:,} of {whole:,} rollouts; the same command goes on")
            raise
        if self.failed:
            raise ConnectionError(
                f"{len(self.failed)} problems have no whole set of answers, and no results; the same command asks again. The "
                f"first: {self.failed[0]}"
            )

    def _left(self, model: EvaluatedModel, asked: Asked) -> list[Work]:
        """What the folder does not hold yet of a model."""
        works = []
        for name, problems in asked.problems.items():
            for setting in settings_of(self.recipe):
                missing = tuple(
                    problem
                    for problem in _of_setting(problems, setting)
                    if _key(model, name, setting, problem) not in self.folder.done
                )
                works += [Work(name, setting, missing)] if missing else []
        return works

    def _measure(self, ways: Models, model: EvaluatedModel, works: Sequence[Work]) -> None:
        """Load a model and sample what is left of it."""
        self.progress.phase("loading", str(model))
        with _naming_memory(), ways.opened(model) as opened:
            for work in works:
                self.progress.phase("sampling", f"{model}: {work.benchmark}, {work.setting}")
                stream = sample_setting(
                    work.problems,
                    opened.prompt_ids,
                    opened.sampler_for(work.setting, work.problems),
                    self.grader,
                    work.setting,
                    seed=self.recipe.seed,
                )
                for group in stream:
                    failures = [rollout.text for rollout in group.rollouts if rollout.finish == "failed"]
                    if failures:
                        self.failed.append(f"{model}, {work.benchmark}, problem {group.problem.id!r}: {failures[0]}")
                        continue
                    with self.interrupts.held():
                        self._count(self.folder.add(model, work.benchmark, work.setting, group))

    def _count(self, result: Mapping[str, Any]) -> None:
        """Show a line of results: four times a second on a terminal, elsewhere after 3 seconds and twice a minute."""
        number = len(result["correct"])
        self.done += number
        self.rollouts += number
        self.tokens += result["tokens"]
        self.correct += sum(result["correct"])
        self.truncated += result["outcomes"]["truncated"]
        now = time.monotonic()
        terminal = self.progress.console.is_terminal
        if now >= self._due or terminal or self.done == self.progress.total:
            self._due = now + 30
            seconds = max(now - self._started, 1e-9)
            metrics = {
                "rate": self.rollouts / seconds,
                "correct": self.correct / self.rollouts,
                "truncated": self.truncated / self.rollouts,
            }
            self.progress.step_done(self.done, metrics, self.tokens / seconds)


@contextmanager
def _naming_memory() -> Iterator[None]:
    """Say of running out of memory which field to lower."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"out of memory: lower batch_size or grading.workers; the same command goes on. {error.__cause__ or error}"
        ) from error


def _checked(
    recipe: EvaluateRecipe,
    ways: Models,
    models: Sequence[EvaluatedModel],
    benchmarks: Sequence[Benchmark],
    progress: Progress,
) -> dict[EvaluatedModel, Asked]:
    """What each model will be asked; says what is left out.

    Raises:
        ValueError, OSError: something cannot work; names the field.
    """
    if recipe.guided:
        for benchmark in benchmarks:
            without = sum(problem.guidance is None for problem in benchmark.problems)
            if without:
                progress.note(
                    f"{benchmark.name}: {without} of {len(benchmark.problems)} problems have no guidance; not sampled guided"
                )
        if all(problem.guidance is None for benchmark in benchmarks for problem in benchmark.problems):
            raise ValueError(
                "guided is set and no problem has guidance; write some with `guide guidance`, or set guided to false"
            )
    else:
        benchmarks = [without_guidance(benchmark) for benchmark in benchmarks]
    asked = {}
    for model in models:
        progress.phase("checking", str(model))
        asked[model] = ways.check(model, benchmarks)
        for text in asked[model].notes:
            progress.note(text)
    if recipe.sampler == "transformers" and recipe.runs_of_greedy > 1:
        progress.note(
            f"greedy_runs is {recipe.greedy_runs}, and greedy decoding in this process is deterministic: all will be the same"
        )
    return asked


def _inputs(
    recipe: EvaluateRecipe, benchmarks: Sequence[Benchmark], asked: dict[EvaluatedModel, Asked]
) -> dict[str, str | None]:
    """Field of the recipe -> a digest of the files that it names."""
    digests = {f"benchmarks.{benchmark.name}": content_digest(benchmark.path) for benchmark in benchmarks}
    for model, known in asked.items():
        digests[f"models.{model.name}" + ("" if model.step is None else f" (step {model.step})")] = known.digest
    template = recipe.prompts.chat_template
    if template and "{{" not in template:
        digests["prompts.chat_template"] = content_digest(template)
    return digests


def _of_setting(problems: Sequence[Problem], setting: Setting) -> list[Problem]:
    """The problems that can be sampled so."""
    return [problem for problem in problems if problem.guidance is not None or not setting.guided]


def _key(model: EvaluatedModel, benchmark: str, setting: Setting, problem: Problem) -> Key:
    """The key of its line of results."""
    return model.name, model.step, benchmark, setting.temperature, setting.guided, problem.id
