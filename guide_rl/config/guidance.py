"""`guide guidance`: the teacher's endpoint and what is asked of it."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from guide_rl.config.checks import require, require_range
from guide_rl.config.shared import ModelConfig
from guide_rl.config.texts import TEACHER_PROMPT


@dataclass(frozen=True)
class ChatConfig:
    """An OpenAI-compatible chat endpoint, and how it is asked."""

    model: str = ""
    """The model's name, as the endpoint knows it; empty in `guide evaluate`, where models has the names."""
    base_url: str = "https://api.openai.com/v1"
    """Where the endpoint is, up to and without /chat/completions; a local server's is like http://127.0.0.1:8000/v1."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable that holds the API key (the key itself is never written anywhere); null for a server that takes none."""
    temperature: float | None = 0.0
    """Sampling temperature; null leaves it to the endpoint (some reasoning models accept no other)."""
    max_tokens: int | None = 1024
    """Longest reply, in tokens; null leaves it to the endpoint."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request, for instance {seed: 1} or {max_completion_tokens: 4096}."""
    concurrency: int = 16
    """Requests in flight at once."""
    requests_per_minute: int | None = None
    """Send at most this many requests a minute, evenly spaced; null means no limit of ours."""
    tokens_per_minute: int | None = None
    """Use at most this many tokens a minute, prompts and replies; null means no limit of ours."""
    timeout_s: float = 120.0
    """Longest wait for a whole reply, in seconds; then the request is tried again."""
    tries: int = 6
    """How often a request is tried on rate limits, server errors, timeouts, cut connections and broken replies."""
    backoff_s: float = 1.0
    """The pause after the first failed try, in seconds; it doubles each time, less up to half of it by chance. A longer Retry-After is honoured."""
    backoff_max_s: float = 60.0
    """The longest such pause, in seconds."""
    stop_after_failures: int | None = 20
    """Stop everything when this many requests in a row have failed for good: the endpoint is down, or refuses what the recipe asks for; null never stops."""
    prompt_price: float | None = None
    """Price of a million prompt tokens, in any unit (dollars); costs are shown in it; null means unknown."""
    completion_price: float | None = None
    """Price of a million reply tokens, in the same unit; null means unknown."""

    def __post_init__(self) -> None:
        at_least_1 = ("max_tokens", "concurrency", "requests_per_minute", "tokens_per_minute", "tries")
        require_range(self, lambda v: v >= 1, "at least 1", *at_least_1, "stop_after_failures", prefix="chat.")
        at_least_0 = ("temperature", "backoff_s", "backoff_max_s", "prompt_price", "completion_price")
        require_range(self, lambda v: v >= 0, "at least 0", *at_least_0, prefix="chat.")
        require_range(self, lambda v: v > 0, "above 0", "timeout_s", prefix="chat.")
        require(
            re.fullmatch(r"https?://[^\s/@?#]+[^\s@?#]*", self.base_url) is not None,
            "chat.base_url must be like http://127.0.0.1:8000/v1: http or https, and no user name, password or query in it",
        )
        require(
            self.api_key_env is None or re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env) is not None,
            "chat.api_key_env must be the name of an environment variable, in capitals (OPENAI_API_KEY); "
            "the key itself belongs into that variable only",
        )
        own = sorted({"model", "messages", "n", "stream", "temperature", "max_tokens"} & set(self.parameters))
        require(
            not own,
            f"chat.parameters cannot hold {', '.join(own)}; one reply is read, whole, and the rest has fields of its own",
        )

    def cost(self, prompt_tokens: int, completion_tokens: int | None) -> float | None:
        """The price of tokens; None where it is unknown."""
        if self.prompt_price is None or self.completion_price is None or completion_tokens is None:
            return None
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6


@dataclass(frozen=True)
class GuidanceRecipe:
    """`guide guidance`: a teacher writes guidance for every problem of a file."""

    problems: str
    """JSON lines file of problems; the teacher sees the solution, or the answer where there is none."""
    out: str = "data/guidance"
    """The folder to write; the same recipe may be run on it again, also with more problems."""
    writer: Literal["teacher", "policy"] = "teacher"
    """Who writes: a chat endpoint (chat), or the policy itself from the reference solution (model)."""
    chat: ChatConfig | None = None
    """The teacher's endpoint: fields such as {model: gpt-4o}; also chat.model=gpt-4o. See --chat.help."""
    model: ModelConfig | None = None
    """The policy that writes its own guidance: fields such as {path: runs/sft/model}. See --model.help."""
    batch_size: int = 16
    """Replies that the policy writes at once."""
    max_tokens: int = 1024
    """Longest reply of the policy, in tokens; the teacher's is chat.max_tokens."""
    chat_template: str | None = None
    """For a policy without a chat template: as prompts.chat_template in `guide train`."""
    prompt: str = TEACHER_PROMPT
    """What is asked; must hold {question} and {reference_answer}."""
    level: int | None = None
    """How many of the points become the guidance, weakest first; null means all. The others stay in metadata. Problems that come with points are cut likewise."""
    overwrite: bool = False
    """Ask for problems that have guidance already, too."""
    check_kept: bool = True
    """Look for the answer in guidance that problems come with, too: where it is found, new guidance is asked for."""
    cache: str | None = None
    """Folder of stored replies and verdicts, which recipes may share; null means OUT/cache."""

    def __post_init__(self) -> None:
        require(bool(self.out.strip()), "out is empty; name a folder, or . for this one")
        require_range(self, lambda v: v >= 1, "at least 1", "batch_size", "max_tokens")
        require_range(self, lambda v: 1 <= v <= 5, "from 1 to 5, or null", "level")
        for name in ("{question}", "{reference_answer}"):
            require(name in self.prompt, f"prompt must hold {name}, which the problem's own takes the place of")
        needed = "chat" if self.writer == "teacher" else "model"
        first = {"chat": "chat.model=gpt-4o", "model": "model.path=runs/sft/model"}[needed]
        require(getattr(self, needed) is not None, f"writer {self.writer} needs {needed}; set it, such as {first}")
        require(
            self.chat is None or bool(self.chat.model.strip()),
            "chat.model is empty; name the model as the endpoint knows it, such as chat.model=gpt-4o",
        )
