"""`guide problems`: rows of data sets -> a folder of clean problems, and a list of the rows that were not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guide_rl.config import GradingConfig, ProblemsRecipe
from guide_rl.graders import GRADERS, GraderSetupError, check
from guide_rl.graders.answer_text import plain, plain_number
from guide_rl.graders.pool import GraderPool, check_answers
from guide_rl.interrupts import Interrupts
from guide_rl.problems.cleaning import find_matches, splits_of
from guide_rl.problems.columns import RowRejected, check_map
from guide_rl.problems.folder import check_folder, locked, write_folder
from guide_rl.problems.reading import evaluation_set, problems_of
from guide_rl.prompts import Prompts, load_tokenizer
from guide_rl.recipes import write_recipe
from guide_rl.types import Problem

_ANSWERS_AT_ONCE = 256


@dataclass(frozen=True)
class Candidate:
    """A problem and where it comes from."""

    problem: Problem
    source: str
    """Name of its source in the recipe."""
    row: int
    """Its number there, from 1."""


@dataclass
class Work:
    """What is being made: the candidates that are left, and the lines about rejected rows."""

    progress: Progress
    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    """Rows read, by source."""

    def reject(self, source: str, row: int, reason: str, detail: str, **more: Any) -> None:
        """Note a rejected row."""
        self.rejected.append({"source": source, "row": row, "reason": reason, "detail": detail, **more})

    def keep(self, reasons: Sequence[tuple[str, str, dict[str, Any]] | None]) -> None:
        """Keep the candidates without a reason (a word or a few, what exactly, more), one entry a candidate."""
        kept = []
        for candidate, why in zip(self.candidates, reasons, strict=True):
            if why is None:
                kept.append(candidate)
            else:
                reason, detail, more = why
                self.reject(candidate.source, candidate.row, reason, detail, id=candidate.problem.id, **more)
        self.candidates = kept


def prepare(recipe: ProblemsRecipe, console: Console | None = None) -> dict[str, Any]:
    """Make the folder `recipe.out`, and return its summary.

    Raises:
        FileExistsError: another recipe filled that folder.
        GraderSetupError: no sandbox for reference answers that are code.
        BlockingIOError: another process works on it.
        ValueError, OSError: a source cannot be read, the recipe maps what is not there, or no problem is left.
    """
    console = console or Console(stderr=True)
    for name, source in recipe.sources.items():
        check_map(name, source)
    out = Path(recipe.out).expanduser()
    with Interrupts(), _progress(console) as progress, locked(out):
        check_folder(out, write_recipe(recipe))
        work = Work(progress)
        _read(work, recipe)
        _check(work)
        guided_too_long = _measure(work, recipe)
        unreadable = _check_answers(work, recipe)
        against = _compare(work, recipe)
        splits = _split(work, recipe)
        if not work.candidates:
            raise ValueError(f"no problem is left; {_most_common(work.rejected)}")
        summary = _summary(work, splits, against, unreadable, guided_too_long)
        write_folder(out, write_recipe(recipe), splits, work.rejected, summary)
    return summary


def _read(work: Work, recipe: ProblemsRecipe) -> None:
    """Turn the rows of all sources into candidates with ids that differ."""
    ids: dict[str, int] = {}
    for name, source in recipe.sources.items():
        task = work.progress.add_task(f"read {name}", total=sum(each.size for each in source.generators) or None)
        for number, _, problem in problems_of(name, source, recipe.seed):
            work.rows[name] += 1
            work.progress.advance(task)
            if isinstance(problem, RowRejected):
                work.reject(name, number, problem.reason, problem.detail)
                continue
            earlier = ids.setdefault(problem.id, number)
            if earlier != number:
                work.reject(name, number, "repeated id", f"row {earlier} has the same", id=problem.id)
            else:
                work.candidates.append(Candidate(problem, name, number))


def _measure(work: Work, recipe: ProblemsRecipe) -> int:
    """Reject problems with too long plain prompts; returns how many of the others have too long guided ones."""
    if recipe.model is None:
        return 0
    prompts = Prompts(tokenizer_of(recipe.model), recipe.prompts)
    reasons: list[tuple[str, str, dict[str, Any]] | None] = []
    guided_too_long = 0
    for candidate in work.progress.track(work.candidates, description="measure prompts"):
        problem = candidate.problem
        length = len(prompts.plain_ids(problem))
        too_long = prompts.over_limit(length, problem, "plain")
        reasons.append(("too long", f"{length} tokens, over {recipe.prompts.max_tokens}", {}) if too_long else None)
        if not too_long and problem.guidance is not None:
            prompts.check(problem)
            guided_too_long += prompts.over_limit(len(prompts.guided_ids(problem)), problem, "guided")
    work.keep(reasons)
    return guided_too_long


def tokenizer_of(model: str) -> Any:
    """The tokenizer of a recipe's `model`.

    Raises:
        OSError: it cannot be loaded; names the field and the model.
    """
    try:
        return load_tokenizer(model)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise OSError(f"model: {model}: cannot load its tokenizer ({reason}); name a folder or a hub model") from error


def _check(work: Work) -> None:
    """Reject problems that lack what their grader needs, where it is one of ours."""
    reasons: list[tuple[str, str, dict[str, Any]] | None] = []
    for candidate in work.candidates:
        reasons.append(None)
        if candidate.problem.grader in GRADERS:
            try:
                check(candidate.problem)
            except GraderSetupError as error:
                reasons[-1] = "cannot be graded", str(error), {}
    work.keep(reasons)


def _check_answers(work: Work, recipe: ProblemsRecipe) -> list[str] | None:
    """The ids of problems whose reference answer their grader cannot read, rejected where the recipe says so."""
    if recipe.unreadable_answers == "unchecked":
        return None
    bad = unreadable_answers([candidate.problem for candidate in work.candidates], recipe.grading, work.progress)
    if recipe.unreadable_answers == "reject":
        work.keep(
            [
                ("unreadable answer", f"grader {c.problem.grader} cannot read {c.problem.answer!r}", {})
                if c.problem.id in bad
                else None
                for c in work.candidates
            ]
        )
    return sorted(bad)


def unreadable_answers(problems: Sequence[Problem], limits: GradingConfig, progress: Progress) -> set[str]:
    """The ids of problems whose own answer their grader calls wrong; see `graders.pool.check_answers`.

    Plain numbers under the math grader are readable; equal answers under it are graded once.
    """
    alike: dict[object, list[Problem]] = {}
    for problem in problems:
        if problem.grader not in GRADERS:
            continue
        if problem.grader == "math" and plain_number(plain(problem.answer)) is not None:
            continue
        key = problem.answer if problem.grader == "math" else (problem.id,)
        alike.setdefault(key, []).append(problem)
    firsts = [group[0] for group in alike.values()]
    bad: set[str] = set()
    task = progress.add_task("check answers", total=len(firsts))
    say = partial(progress.console.print, markup=False, highlight=False, soft_wrap=True)
    with GraderPool.of(limits, say) as pool:
        if code := [problem for problem in firsts if problem.grader == "unit_tests"]:
            pool.check(code[0])
            try:
                pool.warm_up()
            except GraderSetupError as error:
                raise GraderSetupError(f"{error}; unreadable_answers=unchecked runs no reference answers") from error
        for start in range(0, len(firsts), _ANSWERS_AT_ONCE):
            part = firsts[start : start + _ANSWERS_AT_ONCE]
            bad |= {problem.id for problem in check_answers(part, pool)[0]}
            progress.advance(task, len(part))
    return {problem.id for group in alike.values() if group[0].id in bad for problem in group}


def _compare(work: Work, recipe: ProblemsRecipe) -> dict[str, dict[str, Any]]:
    """Reject duplicates and problems of evaluation sets; returns, for each of those sets, its size and what matched."""
    unread: dict[str, list[list[object]]] = {name: [] for name in recipe.against}
    evaluation = [(name, problem) for name in recipe.against for problem in evaluation_set(name, unread[name])]
    problems = [problem for _, problem in evaluation] + [candidate.problem for candidate in work.candidates]
    task = work.progress.add_task("compare questions", total=None)
    matches = find_matches(
        [problem.question for problem in problems],
        [plain(problem.answer) for problem in problems],
        len(evaluation),
        recipe.duplicates,
    )
    work.progress.update(task, total=1, completed=1)
    sizes = Counter(name for name, _ in evaluation)
    against: dict[str, dict[str, Any]] = {
        name: {"problems": sizes[name], "matched": [], "not_compared": unread[name]} for name in recipe.against
    }
    reasons: list[tuple[str, str, dict[str, Any]] | None] = []
    for index, candidate in enumerate(work.candidates, start=len(evaluation)):
        match = matches.get(index)
        if match is None:
            reasons.append(None)
            continue
        earlier = problems[match.earlier]
        more: dict[str, Any] = {"matches": earlier.id, "similarity": round(match.similarity, 3)}
        if match.earlier < len(evaluation):
            name = evaluation[match.earlier][0]
            against[name]["matched"].append([candidate.problem.id, earlier.id])
            reasons.append(("evaluation problem", f"{match.kind} match in {name}", more))
        else:
            same = plain(earlier.answer) == plain(candidate.problem.answer)
            detail = "with the same answer" if same else f"with another answer: {earlier.answer!r:.200}"
            reasons.append(("duplicate" if match.kind == "exact" else "near-duplicate", detail, more))
    work.keep(reasons)
    return against


def _split(work: Work, recipe: ProblemsRecipe) -> dict[str, list[Problem]]:
    """The problems by the file that they go to."""
    if not recipe.splits:
        return {"problems": [candidate.problem for candidate in work.candidates]}
    names = splits_of([candidate.problem.question for candidate in work.candidates], recipe.splits, recipe.seed)
    splits: dict[str, list[Problem]] = {name: [] for name in recipe.splits}
    for candidate, name in zip(work.candidates, names, strict=True):
        if name is not None:
            splits[name].append(candidate.problem)
    work.keep([None if name else ("in no split", "the splits' counts are reached", {}) for name in names])
    for name, size in recipe.splits.items():
        if size > 1 and len(splits[name]) < size:
            raise ValueError(f"splits.{name} asks for {size:g} and gets {len(splits[name])} problems; lower it")
        if not splits[name]:
            raise ValueError(
                f"splits.{name} is a share of too few problems and gets none; lower the counts, or add rows"
            )
    return splits


def _summary(
    work: Work,
    splits: dict[str, list[Problem]],
    against: dict[str, dict[str, Any]],
    unreadable: list[str] | None,
    guided_too_long: int,
) -> dict[str, Any]:
    """What happened, in numbers."""
    kept = Counter(candidate.source for candidate in work.candidates)
    reasons: dict[str, Counter[str]] = {name: Counter() for name in work.rows}
    for line in work.rejected:
        reasons[line["source"]][line["reason"]] += 1
    problems = [candidate.problem for candidate in work.candidates]
    return {
        "sources": {
            name: {"rows": rows, "kept": kept[name], "rejected": dict(reasons[name].most_common())}
            for name, rows in work.rows.items()
        },
        "files": {f"{name}.jsonl": len(rows) for name, rows in splits.items()},
        "against": against,
        "with_guidance": sum(problem.guidance is not None for problem in problems),
        "guided_prompt_too_long": guided_too_long,
        "unreadable_answers": unreadable,
        "graders": dict(Counter(problem.grader for problem in problems)),
    }


def _most_common(rejected: Sequence[dict[str, Any]]) -> str:
    """Why most rows were rejected, with one of them."""
    if not rejected:
        return "the sources hold no rows"
    reason, count = Counter(line["reason"] for line in rejected).most_common(1)[0]
    line = next(line for line in rejected if line["reason"] == reason)
    return f"{count} rows: {reason}, such as {line['source']}, row {line['row']}: {line['detail']}"


def _progress(console: Console) -> Progress:
    """Bars on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
