"""The nouns that flow through everything: Problem -> Request -> Rollout -> Grade -> Group.

Read this file first. Fields are never reused for another meaning: a reward is what the grader
said, an advantage (computed later, in `equations.advantages`) is what the loss uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Finish = Literal["eos", "stop", "length", "failed"]
RolloutKey = tuple[str, bool, int]
"""Names a rollout among those of a step: problem, guided, index."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a checkable answer."""

    id: str
    """Unique in its data set."""
    question: str
    """What the model is asked; the plain prompt holds this and nothing else about the problem."""
    answer: str
    """The reference answer that the grader compares with."""
    guidance: str | None = None
    """The teacher's text that a guided prompt adds; a problem without it never triggers."""
    solution: str | None = None
    """A worked reference solution (used by SFT only)."""
    grader: str = "math"
    """Which grader judges the rollouts: a name in `graders.GRADERS` or `package.module:function`."""
    stratum: str = ""
    """The part of the data that metrics are broken down by (a domain, a difficulty)."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the grader needs beyond the answer (a reasoning-gym entry, unit tests)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One rollout to be sampled."""

    problem_id: str
    """The problem that the prompt asks."""
    index: int
    """Position among the rollouts of this problem with the same `guided`; 0 <= index < k."""
    guided: bool
    """Whether `prompt_ids` holds the guidance."""
    prompt_ids: tuple[int, ...]
    """The prompt as the model sees it, token ids."""
    seed: tuple[int, ...] = ()
    """Key of this rollout's own random stream (with problem_id, index and guided), e.g. (seed, step)."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One attempt at a problem."""

    problem_id: str
    """The problem that it attempts."""
    index: int
    """As in its Request."""
    guided: bool
    """True when it was sampled with guidance in the prompt."""
    prompt_ids: tuple[int, ...]
    """The prompt under which it was sampled."""
    token_ids: tuple[int, ...]
    """The sampled tokens; the EOS token, where one ended the rollout, is the last of them and counts."""
    logprobs: tuple[float, ...]
    """log pi_old(token | prompt_ids, earlier tokens) at the sampling temperature, one per token (natural log)."""
    text: str
    """The decoded tokens, without EOS and without the stop string."""
    finish: Finish
    """Why it ended: the EOS token, a stop string, or the length limit; failed: a server gave no answer (the text says why)."""
    entropy: float
    """Mean over its tokens of the sampling distribution's entropy, in nats; NaN where the sampler does not know it."""
    counted_tokens: int | None = None
    """How many tokens a server counted, which gives neither token ids nor log-probs; None where they are known."""

    @property
    def key(self) -> RolloutKey:
        """Names it among the rollouts of a step."""
        return self.problem_id, self.guided, self.index

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return len(self.token_ids) if self.counted_tokens is None else self.counted_tokens


@dataclass(frozen=True, slots=True)
class Grade:
    """What a grader said of one rollout."""

    reward: float
    """What the loss uses."""
    correct: bool
    """What triggers and measures use."""
    verdict: str = ""
    """Why, in a word or a few (correct, wrong, no answer, timeout, ...)."""

    def result(self) -> "Grade":
        """Itself: a grade that is known is a pending grade that nobody waits for."""
        return self


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one problem in one step, plain ones first, each with its grade."""

    problem: Problem
    rollouts: tuple[Rollout, ...]
    grades: tuple[Grade, ...]

    @property
    def rewards_G(self) -> tuple[float, ...]:
        """The rewards, in the order of the rollouts."""
        return tuple(grade.reward for grade in self.grades)

    @property
    def guided_G(self) -> tuple[bool, ...]:
        """Which rollouts were sampled with guidance."""
        return tuple(rollout.guided for rollout in self.rollouts)

    @property
    def triggered(self) -> bool:
        """Whether this problem got guided rollouts."""
        return any(self.guided_G)

    @property
    def uniform(self) -> bool:
        """Whether all rewards are equal, so that group-relative advantages are 0."""
        return len(set(self.rewards_G)) <= 1


class Sampler(Protocol):
    """A stream: requests go in at any time, rollouts come out as they finish."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Add requests; they take free places at the next admission point."""
        ...

    def poll(self) -> list[Rollout]:
        """Work until at least one rollout has finished and return all that have; [] when idle."""
        ...


class PendingGrade(Protocol):
    """A grade that is being worked out."""

    def result(self) -> Grade:
        """Wait for the grade; never raises on model text."""
        ...


class Grader(Protocol):
    """Judges rollouts beside sampling."""

    def submit(self, problem: Problem, rollout: Rollout) -> PendingGrade:
        """Start grading one rollout; a Grade is returned where it takes no time, which may depend on the text only."""
        ...
