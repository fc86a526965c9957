"""What a teacher is asked about a problem, and what becomes of its replies: points, refused, asked once more, failed."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from guide_rl.chat.client import ChatError, ChatReply, Estimate, Spent
from guide_rl.chat.endpoint import Messages
from guide_rl.guidance.leaks import LeakCheck
from guide_rl.problems.points import POINTS, numbered, parse_points
from guide_rl.types import Problem

ASK_AGAIN = (
    "These hints cannot be used: {reason}. Write the numbered list of hints again, 3 to 5 of them, in such a way that "
    "none states the final answer, in whatever form."
)
"""What follows a refused reply."""

CUT_OFF = "cut off by its limit of tokens; raise max_tokens (chat.max_tokens for a teacher)"
"""Why a reply without its end is refused; another would be cut off as well, so none is asked for."""


class Writer(Protocol):
    """Who writes guidance: `chat.client.ChatClient`, or `self_written.PolicyChat`."""

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

    @property
    def trouble(self) -> str:
        """Why the last try failed; empty after a reply."""
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

    @property
    def kind(self) -> str:
        """Written; refused, where a reply came that cannot be used; failed, where none came."""
        return "written" if self.points else "failed" if self.reply is None else "refused"


def teacher_messages(problem: Problem, prompt: str) -> Messages:
    """What the teacher is asked about a problem: its question and solution (or answer) in the prompt's places."""
    fill = {"{question}": problem.question, "{reference_answer}": problem.solution or problem.answer}
    text = re.sub(r"\{(?:question|reference_answer)\}", lambda match: fill[match[0]], prompt)
    return ({"role": "user", "content": text},)


def judged(problem: Problem, reply: ChatReply, check: LeakCheck) -> Outcome:
    """The points of a reply, or why it is refused."""
    used = {"reply": reply.text, "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    if reply.finish == "length":
        return Outcome(reason=CUT_OFF, **used)  # type: ignore[arg-type]
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


def own_leaks(problems: Iterable[Problem], check: LeakCheck) -> dict[str, tuple[str, str]]:
    """Problems that come with guidance that gives the answer away: id -> (what does, that guidance)."""
    leaks = {}
    for problem in problems:
        for text in (problem.guidance, numbered(problem.metadata.get(POINTS, ()))):
            if problem.guidance is not None and text and (leak := check.find(problem, text)) is not None:
                leaks[problem.id] = leak, text
    return leaks


def _outcome(problem: Problem, reply: ChatReply | ChatError, check: LeakCheck) -> Outcome:
    """What one reply means."""
    return Outcome(reason=str(reply)) if isinstance(reply, ChatError) else judged(problem, reply, check)


def _asked_again(outcome: Outcome) -> bool:
    """Whether a first reply was refused for something that another may do better."""
    return outcome.kind == "refused" and outcome.reason != CUT_OFF


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
