"""Problem -> chat -> token ids, plain or guided.

The two prompts of a problem may differ by the guidance only: `Prompts.check` refuses a chat template or a
guided template under which they differ in anything else, because guided rows would then be trained in a
context that never occurs without guidance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guide_rl.config import CHAT_TEMPLATES, SYSTEM_PROMPTS, PromptsConfig
from guide_rl.types import Problem


class ContextError(ValueError):
    """The plain and the guided prompt of a problem differ by more than the guidance."""


@dataclass(frozen=True)
class PromptCounts:
    """What `Prompts.fit` did: how many problems it kept and changed."""

    kept: int
    """Problems that remain."""
    too_long: int
    """Problems left out because the plain prompt is over the limit."""
    guidance_too_long: int
    """Problems whose guidance was dropped because the guided prompt is over the limit."""
    without_guidance: int
    """Problems that had no guidance to begin with."""
    longest: int
    """Tokens of the longest prompt, plain or guided, of the problems that remain."""


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model.

    Where tokenizer_config.json names no class but the general one, tokenizer.json is taken as it is. AutoTokenizer
    rebuilds it as the class of some model types, Qwen2 among them, so that other tokens come out.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    config = get_tokenizer_config(path, trust_remote_code=trust_remote_code)
    as_it_is = config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
    if as_it_is and "auto_map" not in config:
        return PreTrainedTokenizerFast.from_pretrained(path)
    return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)


def messages_of(problem: Problem, config: PromptsConfig, *, guided: bool) -> list[dict[str, str]]:
    """The prompt as a chat: system prompt, then the question with (guided) its guidance; ValueError where it has none."""
    question = problem.question
    if guided:
        if problem.guidance is None:
            raise ValueError(f"problem {problem.id!r} has no guidance")
        before, rest = config.guided_template.split("{question}")
        fill = lambda part: part.replace("{guidance}", problem.guidance or "")  # noqa: E731
        question = fill(before) + question + fill(rest)
    system = SYSTEM_PROMPTS.get(config.system, config.system)
    messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": question}]


class Prompts:
    """Renders problems for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer.
        config: the recipe's `prompts` section.

    Raises:
        ValueError: the tokenizer has no chat template and the recipe names none, or it has no EOS token.
    """

    def __init__(self, tokenizer: Any, config: PromptsConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.chat_template = _chat_template(tokenizer, config.chat_template)
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no EOS token, so no rollout could end; set eos_token in its configuration"
            )

    def text(self, problem: Problem, *, guided: bool) -> str:
        """The prompt as text: system prompt, question and (guided) guidance in the chat template."""
        messages = messages_of(problem, self.config, guided=guided)
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program, and may fail in any way
            whose = "the tokenizer's chat template" if self.chat_template is None else "prompts.chat_template"
            raise ValueError(f"{whose} fails ({type(error).__name__}: {error}); correct it") from error
        assert isinstance(text, str)
        return text

    def plain_ids(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the plain prompt."""
        return self._encode(self.text(problem, guided=False))

    def guided_ids(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the guided prompt; ValueError when the problem has no guidance."""
        return self._encode(self.text(problem, guided=True))

    def ids(self, problem: Problem, guided: bool) -> tuple[int, ...]:
        """Token ids of one of the two."""
        return self.guided_ids(problem) if guided else self.plain_ids(problem)

    def check(self, problem: Problem) -> None:
        """Raise ContextError unless the guided prompt is the plain one with the guidance added, in one place."""
        plain, guided = self.text(problem, guided=False), self.text(problem, guided=True)
        start = _common_prefix(plain, guided)
        end = _common_prefix(plain[start:][::-1], guided[start:][::-1])
        added = guided[start : len(guided) - end]
        if start + end != len(plain):
            raise ContextError(
                f"problem {problem.id!r}: the plain prompt is not the guided one without the guidance: they differ in "
                f"{plain[start : len(plain) - end]!r} against {added!r}. Guided rows would be trained in a wrong "
                "context; make prompts.guided_template add to {question} only, and use a chat template that "
                "treats both alike"
            )
        if (problem.guidance or "").strip() not in guided:
            raise ContextError(
                f"problem {problem.id!r}: the guided prompt does not hold the guidance; the chat template drops or "
                "changes it. Set prompts.chat_template to one that keeps the user message as it is"
            )

    def fit(self, problems: Sequence[Problem]) -> tuple[list[Problem], PromptCounts]:
        """Apply the length limit and check every guided problem's context.

        Returns:
            The problems to use (with `guidance` dropped where the guided prompt is too long), and the counts.

        Raises:
            ContextError: see `check`.
            ValueError: a prompt is over `prompts.max_tokens` and `prompts.too_long` is fail, or nothing is left.
        """
        kept: list[Problem] = []
        too_long = guidance_too_long = longest = 0
        for problem in problems:
            length = len(self.plain_ids(problem))
            if self.over_limit(length, problem, "plain"):
                too_long += 1
                continue
            if problem.guidance is not None:
                self.check(problem)
                guided_length = len(self.guided_ids(problem))
                if self.over_limit(guided_length, problem, "guided"):
                    guidance_too_long += 1
                    problem = replace(problem, guidance=None)
                else:
                    length = max(length, guided_length)
            longest = max(longest, length)
            kept.append(problem)
        if not kept:
            raise ValueError(
                f"all {too_long} problems have prompts over prompts.max_tokens ({self.config.max_tokens}); raise it"
            )
        without = sum(problem.guidance is None for problem in problems)
        return kept, PromptCounts(len(kept), too_long, guidance_too_long, without, longest)

    def over_limit(self, length: int, problem: Problem, kind: str) -> bool:
        """Whether a prompt of so many tokens is too long; ValueError where `prompts.too_long` says fail."""
        over = length > self.config.max_tokens
        if over and self.config.too_long == "fail":
            raise ValueError(
                f"problem {problem.id!r}: its {kind} prompt has {length} tokens, over prompts.max_tokens "
                f"({self.config.max_tokens}); raise it, or set prompts.too_long to skip"
            )
        return over

    def _encode(self, text: str) -> tuple[int, ...]:
        """Text -> ids; the chat template has already put in every special token."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class PromptIds:
    """`Prompts.ids`, remembered until `forget`."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts
        self._ids: dict[tuple[str, str, str | None], tuple[int, ...]] = {}

    def __call__(self, problem: Problem, guided: bool) -> tuple[int, ...]:
        """The problem's prompt as token ids."""
        key = (problem.id, problem.question, problem.guidance if guided else None)
        if key not in self._ids:
            self._ids[key] = self.prompts.ids(problem, guided)
        return self._ids[key]

    def forget(self) -> None:
        """Drop what is remembered."""
        self._ids.clear()


def _chat_template(tokenizer: Any, given: str | None) -> str | None:
    """The template to use: the recipe's (a name, a file or Jinja text), else the tokenizer's own."""
    if given is None:
        if not tokenizer.chat_template:
            raise ValueError(
                "the tokenizer has no chat template; set prompts.chat_template to a name "
                f"({', '.join(CHAT_TEMPLATES)}), a Jinja file, or Jinja text"
            )
        return None
    if given in CHAT_TEMPLATES:
        return CHAT_TEMPLATES[given]
    if "{{" in given:
        return given
    if Path(given).is_file():
        return Path(given).read_text(encoding="utf-8")
    raise ValueError(
        f"prompts.chat_template {given!r} is neither a name ({', '.join(CHAT_TEMPLATES)}), nor a file, nor Jinja text"
    )


def _common_prefix(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    length = min(len(a), len(b))
    return next((i for i in range(length) if a[i] != b[i]), length)
