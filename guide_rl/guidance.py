"""`guide guidance`: a teacher writes guidance for every problem that has none; what gives the answer away is refused.

    OUT/problems.jsonl     all problems, in the order of their file, with guidance where it was written
    OUT/refused.jsonl      one line a problem whose guidance was refused: id, reason, and the reply
    OUT/failed.jsonl       one line a problem for which no reply came: id and reason
    OUT/summary.json       counts, and tokens and cost of all replies used; written last
    OUT/last_run.json      what the last run itself asked
    OUT/recipe.yaml        the recipe as resolved
    OUT/cache/             replies and verdicts: a second run asks only what is not there

What is written follows from problems, recipe and replies alone, so an interrupted run is simply started again.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from guide_rl.chat_api import ChatClient, ChatError, ChatReply, Estimate, Spent
from guide_rl.chat_endpoint import Messages
from guide_rl.config import GuidanceRecipe
from guide_rl.interrupts import Interrupts
from guide_rl.leaks import LeakCheck
from guide_rl.problems import load_problems, save_problems
from guide_rl.progress import Progress
from guide_rl.recipes import write_recipe
from guide_rl.types import Problem

MOST_POINTS = 5
"""Points of guidance; further ones are dropped."""
POINTS = "guidance_points"
"""Key of a problem's metadata under which all points stand."""
ASK_AGAIN = (
    "These hints cannot be used: {reason}. Write the numbered list of hints again, 3 to 5 of them, in such a way that "
    "none states the final answer, in whatever form."
)
"""What follows a refused reply."""

_ITEM = re.compile(
    r"^[*_#> \t]*(?:(?:hint|point|step)[ \t]*)?(?:\(?([0-9]{1,2})[.):]|([-*+\u2022]))[*_:. \t]+(?=\S)", re.IGNORECASE
)
_UNMARKED = re.compile(r"^[*_#> \t]*(?:hint|point)[ \t]*([0-9]{1,2})(?![\w.])[\W_]*", re.IGNORECASE)


class Writer(Protocol):
    """Who writes guidance: `chat_api.ChatClient`, or `self_guidance.PolicyChat`."""

    def ask(self, requests: Iterable[tuple[str, Messages]]) -> Iterator[tuple[str, ChatReply | ChatError]]:
        """Answer requests (key, messages) in the order in which the answers come."""
        ...

    def estimate(self, requests: Iterable[tuple[str, Messages]]) -> Estimate:
        """What `ask` would use."""
        ...

    @property
    def spent(self) -> Spent:
        """What was used until now."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a problem."""

    points: tuple[str, ...] = ()
    """The guidance, weakest point first; () where there is none."""
    reason: str = ""
    """Why there is none."""
    reply: str | None = None
    """The last reply; None where none came."""
    prompt_tokens: int = 0
    """Tokens of all requests for it that were answered."""
    completion_tokens: int = 0
    """Tokens of their replies."""


def teacher_messages(problem: Problem, prompt: str) -> Messages:
    """What the teacher is asked about a problem: its question and solution (or answer) in the prompt's places."""
    fill = {"{question}": problem.question, "{reference_answer}": problem.solution or problem.answer}
    text = re.sub(r"\{(?:question|reference_answer)\}", lambda match: fill[match[0]], prompt)
    return ({"role": "user", "content": text},)


def parse_points(reply: str) -> tuple[str, ...]:
    """The points of a reply's list, at most five: a numbered one where there is one, else a bulleted one.

    Text before the list is dropped, lines that follow an item without a blank line between belong to it.
    """
    found: dict[str, list[list[str]]] = {"numbered": [], "bulleted": []}
    current: list[str] | None = None
    top = ""
    for line in reply.replace("\r\n", "\n").split("\n"):
        item = _ITEM.match(line) or _UNMARKED.match(line)
        kind = "" if item is None else "bulleted" if item.re is _ITEM and item[2] else "numbered"
        nested = kind == "bulleted" and top == "numbered" and current is not None
        if item is not None and not nested:
            current, top = [line[item.end() :]], kind
            found[kind].append(current)
        elif not line.strip():
            current = None if current is None or any(text.strip() for text in current) else current
        elif current is not None:
            current.append(line if item is None else line[item.end() :])
    lists = found["numbered"] or found["bulleted"]
    points = (" ".join(" ".join(lines).split()).strip("*_ ") for lines in lists)
    return tuple(point for point in points if point)[:MOST_POINTS]


def numbered(points: Sequence[str]) -> str:
    """Points in the paper's layout: a numbered list, one a line."""
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points, start=1))


def guidance_at(problem: Problem, level: int | None) -> Problem:
    """The problem with its first `level` points as guidance (None: all); unchanged where it has no points."""
    points = problem.metadata.get(POINTS)
    return replace(problem, guidance=numbered(points[:level])) if points else problem


def judged(problem: Problem, reply: ChatReply, check: LeakCheck) -> Outcome:
    """The points of a reply, or why it is refused."""
    used = {"reply": reply.text, "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    if reply.finish == "length":
        return Outcome(reason="cut off by the limit on its length", **used)  # type: ignore[arg-type]
    points = parse_points(reply.text)
    if not points:
        return Outcome(reason="it holds no list of hints", **used)  # type: ignore[arg-type]
    leak = check.find(problem, numbered(points))
    if leak is not None:
        return Outcome(reason=f"it gives the final answer away: {leak}", **used)  # type: ignore[arg-type]
    return Outcome(points, **used)  # type: ignore[arg-type]


def ask_all(
    problems: Sequence[Problem],
    writer: Writer,
    check: LeakCheck,
    prompt: str,
    done: Callable[[str, Outcome], None] = lambda key, outcome: None,
) -> dict[str, Outcome]:
    """Ask once for every problem, and once more where the reply was refused; what became of each, by id."""
    by_id = {problem.id: problem for problem in problems}
    outcomes: dict[str, Outcome] = {}
    first = ((problem.id, teacher_messages(problem, prompt)) for problem in problems)
    for key, reply in writer.ask(first):
        outcomes[key] = _outcome(by_id[key], reply, check)
        if not _asked_again(outcomes[key]):
            done(key, outcomes[key])
    refused = [problem for problem in problems if _asked_again(outcomes[problem.id])]
    again = ((problem.id, _again(problem, outcomes[problem.id], prompt)) for problem in refused)
    for key, reply in writer.ask(again):
        outcomes[key] = _sum(outcomes[key], _outcome(by_id[key], reply, check))
        done(key, outcomes[key])
    return outcomes


def write_guidance(
    recipe: GuidanceRecipe, writer: Writer | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Run the recipe and write its folder; `writer` stands in for the recipe's own. Returns the summary.

    Raises:
        FileExistsError: the folder holds something else.
        ValueError, OSError: the problems cannot be read, there is no API key, or the endpoint cannot be used; replies
            until then are stored.
    """
    started = time.monotonic()
    problems = load_problems(recipe.problems)
    todo = _todo(recipe, problems)
    out = _folder(recipe)
    with (
        Interrupts(),
        LeakCheck(_cache(recipe) / "leaks.sqlite") as check,
        Progress(max(len(todo), 1), label="guidance", shown=_SHOWN, console=console) as progress,
        _opened(recipe, writer) as asked,
    ):
        outcomes = ask_all(todo, asked, check, recipe.prompt, _reporter(progress))
        spent = asked.spent
    summary = _summary(recipe, problems, outcomes)
    _write(out / "problems.jsonl", lambda path: save_problems(path, _guided(problems, outcomes, recipe.level)))
    rows = [(problem.id, outcomes[problem.id]) for problem in todo if not outcomes[problem.id].points]
    _write_lines(
        out / "refused.jsonl",
        [{"id": key, "reason": row.reason, "reply": row.reply} for key, row in rows if row.reply is not None],
    )
    _write_lines(out / "failed.jsonl", [{"id": key, "reason": row.reason} for key, row in rows if row.reply is None])
    last_run = asdict(spent) | {"seconds": round(time.monotonic() - started, 1)}
    _write_text(out / "last_run.json", json.dumps(last_run, indent=2) + "\n")
    _write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return {**summary, "last_run": last_run}


def dry_run(recipe: GuidanceRecipe) -> str:
    """What the recipe would ask and what that would cost, and one prompt, as text; asks nothing."""
    problems = load_problems(recipe.problems)
    todo = _todo(recipe, problems)
    lines = [f"{len(todo)} of {len(problems)} problems would be asked about"]
    if todo and recipe.writer == "teacher":
        with _opened(recipe, None) as writer:
            guess = writer.estimate((problem.id, teacher_messages(problem, recipe.prompt)) for problem in todo)
        most = "without limit" if guess.completion_tokens is None else f"at most {guess.completion_tokens:,}"
        cost = (
            "unknown (set chat.prompt_price and chat.completion_price)" if guess.cost is None else f"{guess.cost:,.2f}"
        )
        lines += [
            f"{guess.cached} replies are stored; the others take about {guess.prompt_tokens:,} prompt tokens and "
            f"{most} reply tokens",
            f"cost at most: {cost}; a refused reply is asked for once more",
        ]
    if todo:
        lines += [
            "",
            f"# Problem {todo[0].id!r}, what is asked",
            "",
            teacher_messages(todo[0], recipe.prompt)[0]["content"],
        ]
    return "\n".join(lines)


def report(summary: Mapping[str, Any], out: str) -> str:
    """A summary as a few lines."""
    last = summary["last_run"]
    cost = "" if last["cost"] is None else f", cost {last['cost']:,.2f}"
    return (
        f"{summary['written']} written, {summary['refused']} refused, {summary['failed']} failed, "
        f"{summary['kept']} had guidance already: {out}/problems.jsonl\n"
        f"asked {last['asked']}, stored before {last['cached']}, retried {last['retried']}; "
        f"{last['prompt_tokens']:,} prompt and {last['completion_tokens']:,} reply tokens{cost}; {last['seconds']} s"
    )


_SHOWN = {
    "rate": "{:,.1f} problems/s",
    "written": "{:.0f} written",
    "refused": "{:.0f} refused",
    "failed": "{:.0f} failed",
}


def _outcome(problem: Problem, reply: ChatReply | ChatError, check: LeakCheck) -> Outcome:
    """What one reply means."""
    return Outcome(reason=str(reply)) if isinstance(reply, ChatError) else judged(problem, reply, check)


def _asked_again(outcome: Outcome) -> bool:
    """Whether a first reply was refused for something that another may do better."""
    return not outcome.points and outcome.reply is not None


def _again(problem: Problem, refused: Outcome, prompt: str) -> Messages:
    """The second request: the first, its reply, and what was wrong with it."""
    reply = {"role": "assistant", "content": refused.reply or "(nothing)"}
    reason = {"role": "user", "content": ASK_AGAIN.replace("{reason}", refused.reason)}
    return (*teacher_messages(problem, prompt), reply, reason)


def _sum(first: Outcome, second: Outcome) -> Outcome:
    """The second outcome, with the tokens of both; a first refusal stays one where the second request failed."""
    if second.reply is None:
        return replace(first, reason=f"{first.reason}; asked again: {second.reason}")
    return replace(
        second,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
    )


def _guided(problems: Iterable[Problem], outcomes: Mapping[str, Outcome], level: int | None) -> Iterator[Problem]:
    """All problems, with the guidance that was written for them."""
    for problem in problems:
        outcome = outcomes.get(problem.id)
        if outcome is None:
            yield problem
        elif not outcome.points:
            metadata = {name: value for name, value in problem.metadata.items() if name != POINTS}
            yield replace(problem, guidance=None, metadata=metadata)
        else:
            points = {**problem.metadata, POINTS: list(outcome.points)}
            yield replace(problem, guidance=numbered(outcome.points[:level]), metadata=points)


def _summary(recipe: GuidanceRecipe, problems: Sequence[Problem], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Counts, and what all replies used took, whenever they were asked for."""
    tokens = [sum(getattr(row, f"{kind}_tokens") for row in outcomes.values()) for kind in ("prompt", "completion")]
    prices = (recipe.chat.prompt_price, recipe.chat.completion_price) if recipe.chat else (None, None)
    known = prices[0] is not None and prices[1] is not None
    return {
        "problems": len(problems),
        "kept": len(problems) - len(outcomes),
        **_counts(outcomes.values()),
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "cost": sum(t * p for t, p in zip(tokens, prices, strict=True)) / 1e6 if known else None,  # type: ignore[operator]
    }


def _counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many were written, refused and failed."""
    kinds = ["written" if row.points else "failed" if row.reply is None else "refused" for row in outcomes]
    return {name: kinds.count(name) for name in ("written", "refused", "failed")}


def _todo(recipe: GuidanceRecipe, problems: Sequence[Problem]) -> list[Problem]:
    """The problems to ask about."""
    return [problem for problem in problems if recipe.overwrite or problem.guidance is None]


def _reporter(progress: Progress) -> Callable[[str, Outcome], None]:
    """Counts outcomes and shows them, four times a second on a terminal and twice a minute elsewhere."""
    counts = {"written": 0, "refused": 0, "failed": 0}
    started = shown = time.monotonic()
    every_s = 0.25 if progress.console.is_terminal else 30.0

    def done(key: str, outcome: Outcome) -> None:
        nonlocal shown
        counts["written" if outcome.points else "failed" if outcome.reply is None else "refused"] += 1
        now = time.monotonic()
        number = sum(counts.values())
        if now - shown >= every_s or number == progress.total:
            shown = now
            progress.step_done(number, {**counts, "rate": number / max(now - started, 1e-9)})

    return done


def _cache(recipe: GuidanceRecipe) -> Path:
    """The folder of replies and verdicts, made where it is not."""
    folder = Path(recipe.cache) if recipe.cache else Path(recipe.out) / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _opened(recipe: GuidanceRecipe, writer: Writer | None) -> Any:
    """The writer as a context manager."""
    if writer is not None:
        return contextlib.nullcontext(writer)
    if recipe.writer == "policy":
        from guide_rl.self_guidance import PolicyChat

        return PolicyChat(recipe, cache=_cache(recipe) / "replies.sqlite")
    assert recipe.chat is not None
    return ChatClient(recipe.chat, cache=_cache(recipe) / "replies.sqlite")


def _folder(recipe: GuidanceRecipe) -> Path:
    """The recipe's folder; FileExistsError when it holds what another problem file or prompt gave."""
    out = Path(recipe.out)
    if (out / "problems.jsonl").exists() and not (out / "last_run.json").exists():
        raise FileExistsError(
            f"{out} holds problems that `guide guidance` did not write; choose another folder (out=...)"
        )
    if (out / "problems.jsonl").exists() and (out / "problems.jsonl").samefile(recipe.problems):
        raise FileExistsError(f"{recipe.problems} would be overwritten; choose another folder (out=...)")
    out.mkdir(parents=True, exist_ok=True)
    _write_text(out / "recipe.yaml", write_recipe(recipe))
    return out


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    _write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_text(path: Path, text: str) -> None:
    """Write a whole file, or none of it."""
    _write(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file under another name, then put it in place at once."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    os.replace(partial, path)
