"""`guide guidance`: a teacher writes guidance for every problem that has none; what gives the answer away is refused.

    OUT/problems.jsonl     all problems, in the order of their file, with guidance where it was written
    OUT/refused.jsonl      one line a problem whose guidance was refused, its own or a reply: id, reason, and that text
    OUT/failed.jsonl       one line a problem for which no reply came: id and reason
    OUT/summary.json       counts, and tokens and cost of all replies used; written last
    OUT/last_run.json      what the last run itself asked
    OUT/recipe.yaml        the recipe that made problems.jsonl, as resolved
    OUT/cache/             replies and verdicts: a second run asks only what is not there

What is written follows from problems, recipe and replies alone, so an interrupted run is simply started again.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from guide_rl.atomic_files import put_file, put_text
from guide_rl.chat.client import ChatClient, ChatStopped
from guide_rl.config import GuidanceRecipe
from guide_rl.guidance.asking import ASK_AGAIN, Outcome, Writer, ask_all, own_leaks, teacher_messages
from guide_rl.guidance.leaks import LeakCheck
from guide_rl.interrupts import Interrupts
from guide_rl.problems import load_problems, save_problems
from guide_rl.problems.points import POINTS, guidance_at
from guide_rl.progress import Progress
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.types import Problem

_KINDS = ("written", "refused", "failed")
_WRITTEN_LATER = ("problems.jsonl", "recipe.yaml", "summary.json")
"""Files that are written after last_run.json: without it they are somebody else's."""
_SHOWN = {kind: f"{{:.0f}} {kind}" for kind in _KINDS}


def write_guidance(
    recipe: GuidanceRecipe, writer: Writer | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Run the recipe and write its folder; `writer` stands in for the recipe's own. Returns the summary.

    Raises:
        FileExistsError: the folder holds something else, or the result of other problems, another prompt, writer or level.
        BlockingIOError: another process works on the folder.
        ValueError, OSError: the problems cannot be read, there is no API key, or the endpoint cannot be used; replies
            until then are stored. Or nothing was written though something was asked; refused.jsonl and failed.jsonl say why.
    """
    started = time.monotonic()
    problems = load_problems(recipe.problems)
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    with RunFolder(out).lock(), Interrupts():
        _check_folder(recipe, problems)
        cache = _cache_folder(recipe)
        cache.mkdir(parents=True, exist_ok=True)
        with (
            LeakCheck(cache / "leaks.sqlite") as check,
            _opened(recipe, writer, cache / "replies.sqlite") as asked,
        ):
            leaking = own_leaks(_to_check(recipe, problems), check)
            todo = _todo(recipe, problems, leaking)
            total = max(len(todo), 1)
            with Progress(total, label="guidance", shown=_SHOWN, unit="problems", console=console) as progress:
                counts: Counter[str] = Counter()
                progress.phase("asking:", lambda: _doing(asked))
                try:
                    outcomes = ask_all(todo, asked, check, recipe.prompt, _reporter(progress, counts, asked))
                except (KeyboardInterrupt, ChatStopped):
                    if asked.spent.asked or counts:
                        progress.note(
                            f"stopped: {_listed(counts)} of {len(todo)}; {_used(asdict(asked.spent))}; the replies are stored "
                            f"in {cache}: start the same command again to go on"
                        )
                    raise
            spent = asked.spent
        summary = _summary(recipe, problems, outcomes, leaking)
        last_run = asdict(spent) | {"seconds": round(time.monotonic() - started, 1)}
        _write_result(recipe, problems, outcomes, leaking, summary, last_run)
    if todo and not summary["written"]:
        why, first = "; ".join(_reasons(summary, recipe.out)), outcomes[todo[0].id].reason
        details = "" if first in why else f"; the first: {first}"
        raise ValueError(f"no guidance was written for any of {len(todo)} problems; {why}{details}")
    return {**summary, "last_run": last_run}


def dry_run(recipe: GuidanceRecipe) -> str:
    """What the recipe would ask and what that would cost, and one prompt, as text; asks and writes nothing."""
    problems = load_problems(recipe.problems)
    with LeakCheck() as check:
        leaking = own_leaks(_to_check(recipe, problems), check)
    todo = _todo(recipe, problems, leaking)
    lines = [f"{len(todo)} of {len(problems)} problems have no guidance to use", *_leaking_line(len(leaking))]
    if todo:
        cache = _cache_folder(recipe) / "replies.sqlite"
        with _opened(recipe, None, cache if cache.exists() else ":memory:") as writer:
            lines += _estimated(recipe, todo, writer)
        prompt = teacher_messages(todo[0], recipe.prompt)[0]["content"]
        lines += ["", f"# Problem {todo[0].id!r}, what is asked", "", prompt]
    return "\n".join(lines)


def report(summary: Mapping[str, Any], out: str) -> str:
    """A summary as a few lines."""
    return "\n".join(
        [
            f"{_listed(summary)}, {summary['kept']} had guidance already: {out}/problems.jsonl",
            *_leaking_line(summary["leaking"]),
            *_reasons(summary, out),
            f"{_used(summary['last_run'])}; {summary['last_run']['seconds']} s",
        ]
    )


def _estimated(recipe: GuidanceRecipe, todo: Sequence[Problem], writer: Writer) -> list[str]:
    """The lines of a dry run about tokens and cost."""
    guess = writer.estimate((problem.id, teacher_messages(problem, recipe.prompt)) for problem in todo)
    most = "without limit" if guess.completion_tokens is None else f"at most {guess.completion_tokens:,}"
    lines = [
        f"first replies: {guess.cached} are stored, {guess.requests - guess.cached} to be asked for; these take about "
        f"{guess.prompt_tokens:,} prompt tokens and {most} reply tokens"
    ]
    if recipe.writer == "teacher" and recipe.chat is not None:
        if guess.cost is None or guess.completion_tokens is None:
            return [*lines, "cost: unknown (set chat.prompt_price, chat.completion_price and chat.max_tokens)"]
        # A second request holds the first, its reply, and what was wrong with it.
        second = guess.prompt_tokens + guess.completion_tokens + len(ASK_AGAIN) // 2 * (guess.requests - guess.cached)
        twice = recipe.chat.cost(guess.prompt_tokens + second, 2 * guess.completion_tokens)
        lines.append(
            f"cost: about {money(guess.cost)} with replies of full length, and about {money(twice)} if every reply had to be "
            "asked for once more (in the unit of chat.prompt_price; tokens are guessed from bytes)"
        )
    return lines


def money(cost: float | None) -> str:
    """A cost in two digits or more."""
    return "unknown" if cost is None else f"{cost:,.2f}" if cost >= 1 else f"{cost:.2g}"


def _listed(counts: Mapping[str, int]) -> str:
    """How many were written, refused and failed, in words."""
    return ", ".join(f"{counts[kind]} {kind}" for kind in _KINDS)


def _used(spent: Mapping[str, Any]) -> str:
    """What was asked and used, in words."""
    cost = "" if spent["cost"] is None else f", cost {money(spent['cost'])} (in the unit of chat.prompt_price)"
    return (
        f"asked {spent['asked']}, stored before {spent['cached']}, retried {spent['retried']}; "
        f"{spent['prompt_tokens']:,} prompt and {spent['completion_tokens']:,} reply tokens{cost}"
    )


def _reasons(summary: Mapping[str, Any], out: str) -> list[str]:
    """A line for what was refused and one for what failed: how many for which reason."""
    return [
        f"{kind} ({out}/{kind}.jsonl): " + ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        for kind, reasons in summary["reasons"].items()
        if reasons
    ]


def _leaking_line(count: int) -> list[str]:
    """What is said of guidance that problems came with."""
    return [f"of these, {count} came with guidance that gives the answer away (check_kept)"] if count else []


def _to_check(recipe: GuidanceRecipe, problems: Sequence[Problem]) -> Sequence[Problem]:
    """The problems whose own guidance is looked at."""
    return problems if recipe.check_kept and not recipe.overwrite else ()


def _todo(recipe: GuidanceRecipe, problems: Sequence[Problem], leaking: Mapping[str, object]) -> list[Problem]:
    """The problems to ask about."""
    return [row for row in problems if recipe.overwrite or row.guidance is None or row.id in leaking]


def _guided(problems: Iterable[Problem], outcomes: Mapping[str, Outcome], level: int | None) -> Iterator[Problem]:
    """All problems, with the guidance that was written for them, or that they came with, at this level."""
    for problem in problems:
        outcome = outcomes.get(problem.id)
        if outcome is None:
            yield problem if level is None else guidance_at(problem, level)
        elif not outcome.points:
            metadata = {name: value for name, value in problem.metadata.items() if name != POINTS}
            yield replace(problem, guidance=None, metadata=metadata)
        else:
            points = {**problem.metadata, POINTS: list(outcome.points)}
            yield guidance_at(replace(problem, metadata=points), level)


def _summary(
    recipe: GuidanceRecipe, problems: Sequence[Problem], outcomes: Mapping[str, Outcome], leaking: Mapping[str, object]
) -> dict[str, Any]:
    """Counts, reasons, and what all replies used took, whenever they were asked for."""
    prompt_tokens, completion_tokens = (
        sum(getattr(row, f"{kind}_tokens") for row in outcomes.values()) for kind in ("prompt", "completion")
    )
    kinds = Counter(row.kind for row in outcomes.values())
    return {
        "problems": len(problems),
        "kept": len(problems) - len(outcomes),
        "leaking": len(leaking),
        **{kind: kinds[kind] for kind in _KINDS},
        "reasons": {
            kind: dict(Counter(row.reason.partition(": ")[0] for row in outcomes.values() if row.kind == kind))
            for kind in ("refused", "failed")
        },
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": None if recipe.chat is None else recipe.chat.cost(prompt_tokens, completion_tokens),
    }


def _reporter(progress: Progress, counts: Counter[str], writer: Writer) -> Callable[[str, Outcome], None]:
    """Counts outcomes and shows them: at once on a terminal, elsewhere after 3 seconds and twice a minute.

    Rate and time left leave out what was stored: it comes first, in no time.
    """
    due = time.monotonic() + 3.0

    def done(key: str, outcome: Outcome) -> None:
        nonlocal due
        counts[outcome.kind] += 1
        number = counts.total()
        if not writer.spent.asked:
            progress.resumed_at(number)
        if progress.console.is_terminal or number == progress.total or time.monotonic() >= due:
            due = time.monotonic() + 30.0
            progress.step_done(number, {**dict.fromkeys(_KINDS, 0), **counts})

    return done


def _doing(writer: Writer) -> str:
    """What was asked until now, and what keeps replies from coming."""
    spent = writer.spent
    return f"{spent.asked:,} answered, {spent.cached:,} stored before, {spent.retried:,} retried  {writer.trouble}"


def _cache_folder(recipe: GuidanceRecipe) -> Path:
    """The folder of replies and verdicts."""
    return Path(recipe.cache) if recipe.cache else Path(recipe.out) / "cache"


def _opened(recipe: GuidanceRecipe, writer: Writer | None, cache: str | Path) -> Any:
    """The writer as a context manager."""
    if writer is not None:
        return contextlib.nullcontext(writer)
    if recipe.writer == "policy":
        from guide_rl.guidance.self_written import PolicyChat

        return PolicyChat(recipe, cache=cache)
    assert recipe.chat is not None
    return ChatClient(recipe.chat, cache=cache)


def _check_folder(recipe: GuidanceRecipe, problems: Iterable[Problem]) -> None:
    """FileExistsError when the recipe's folder holds what is not this recipe's; problems may have been added since."""
    out, result = Path(recipe.out), Path(recipe.out) / "problems.jsonl"
    for name in _WRITTEN_LATER if not (out / "last_run.json").exists() else ():
        if (out / name).exists():
            raise FileExistsError(
                f"{out} holds a {name} that `guide guidance` did not write; use another out (out=...)"
            )
    if not result.exists():
        return
    if result.samefile(recipe.problems):
        raise FileExistsError(f"{recipe.problems} would be overwritten; use another out (out=...)")
    was = _made_by(yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8")))
    for name, value in _made_by(yaml.safe_load(write_recipe(recipe))).items():
        if was.get(name) != value:
            raise FileExistsError(
                f"{out} holds a result with {name} {_short(was.get(name))}, and not {_short(value)}; use another out (out=...)"
            )
    now = {problem.id: (problem.question, problem.answer) for problem in problems}
    for row in load_problems(result):
        if now.get(row.id) != (row.question, row.answer):
            raise FileExistsError(
                f"{out} holds a result of other problems: {recipe.problems} has no problem {row.id!r} with the same question "
                "and answer; use another out (out=...)"
            )


def _made_by(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe must be the same for its result to be replaced: field -> value."""
    section, names = (
        ("model", ["path"]) if recipe["writer"] == "policy" else ("chat", ["model", "temperature", "parameters"])
    )
    own = {f"{section}.{name}": (recipe[section] or {}).get(name) for name in names}
    return {name: recipe[name] for name in ("writer", "prompt", "level")} | own


def _short(value: object) -> str:
    """A value as part of a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _write_result(
    recipe: GuidanceRecipe,
    problems: Sequence[Problem],
    outcomes: Mapping[str, Outcome],
    leaking: Mapping[str, tuple[str, str]],
    summary: Mapping[str, Any],
    last_run: Mapping[str, Any],
) -> None:
    """Write all files; without any guidance written, only those that say why."""
    out = Path(recipe.out)
    own = "the guidance that it came with gives the final answer away"
    refused: list[dict[str, Any]] = [
        {"id": key, "reason": f"{own}: {leak}", "reply": text} for key, (leak, text) in leaking.items()
    ]
    refused += [{"id": key, "reason": r.reason, "reply": r.reply} for key, r in outcomes.items() if r.kind == "refused"]
    failed = [{"id": key, "reason": row.reason} for key, row in outcomes.items() if row.kind == "failed"]
    order = {problem.id: number for number, problem in enumerate(problems)}
    for name, rows in (("refused", refused), ("failed", failed)):
        rows.sort(key=lambda row: order[str(row["id"])])
        put_text(out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    put_text(out / "last_run.json", json.dumps(last_run, indent=2) + "\n")
    if outcomes and not summary["written"]:
        return
    put_text(out / "recipe.yaml", write_recipe(recipe))
    put_file(out / "problems.jsonl", lambda path: save_problems(path, _guided(problems, outcomes, recipe.level)))
    put_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
